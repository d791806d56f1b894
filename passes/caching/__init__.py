"""The cache of keys and values: where it is kept and how programs read it."""
