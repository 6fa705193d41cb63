"""A benchmark that compares rate limiting libraries."""
