-- Runs in the busted process before the specs: what they start must not inherit the sanitizer's preload.
require("nfqueue.core").setenv("LD_PRELOAD", "")
