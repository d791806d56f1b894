"""Hugging Face checkpoints: a local folder, the library's own model classes, one decoder graph."""
