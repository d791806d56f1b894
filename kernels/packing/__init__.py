"""Packed layouts of quantized weights, each defined once."""
