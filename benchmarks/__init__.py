"""The benchmarks, which `make bench WHAT=…` runs: a folder for each one."""
