"""Explanations: a page for every error code, and what methods and passes say of themselves."""
