"""A published sentence encoder in 8 to 2 bits: what is saved, and whose neighbours change."""
