"""Family `vlm`: a small LLaVA that answers questions about rendered scenes."""
