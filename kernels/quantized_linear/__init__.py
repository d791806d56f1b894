"""`effc::quantized_linear`: a linear layer over group-quantized weights."""
