"""Family `reason`: a small Qwen3 that solves problems step by step."""
