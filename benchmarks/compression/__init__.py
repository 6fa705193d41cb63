"""A benchmark that compares response compression: bytes, processor time, stalls and memory."""
