"""`effc::quantized_grouped_linear`: `grouped_linear` over group-quantized experts."""
