std = "lua54"
max_line_length = 120
files["spec/**/*_spec.lua"].std = "lua54+busted"
files["*.rockspec"].std = "rockspec"
files["spec/**/*_spec.lua"].max_line_length = 120
files["spec/faults/**/*.lua"].read_globals = { "kernel" } -- of spec/faults/kernel.c
