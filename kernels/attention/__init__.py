"""Attention over keys and values that are all at hand (no cache)."""
