"""Response compression side by side: bytes, processor time, stalls and memory."""
