"""Family `recall`: a small Qwen3 that finds records in long contexts."""
