"""Coverage-guided fuzzing of the parsers of untrusted input, by atheris: `make fuzz`."""
