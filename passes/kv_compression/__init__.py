"""Smaller caches: one method per file, each a frozen dataclass named as in its paper."""
