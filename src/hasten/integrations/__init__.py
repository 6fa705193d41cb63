"""What fits hasten into other frameworks: one module for each."""
