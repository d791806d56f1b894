"""Family `lm`: a small Llama that writes Python."""
