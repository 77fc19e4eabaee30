"""Writing to the paged KV cache, and moving its blocks."""
