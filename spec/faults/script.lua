-- The handler of judge.lua as a script.
return dofile("spec/faults/judge.lua").handler()
