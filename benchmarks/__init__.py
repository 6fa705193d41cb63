"""What `make bench WHAT=…` runs: a folder for each capability."""
