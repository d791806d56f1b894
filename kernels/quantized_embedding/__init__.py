"""`effc::quantized_embedding`: rows looked up in a group-quantized table."""
