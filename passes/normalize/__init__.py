"""Exact clean-up of captured graphs."""
