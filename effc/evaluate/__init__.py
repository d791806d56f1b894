"""What a rewrite cost: the original and the rewritten model side by side on the same data."""
