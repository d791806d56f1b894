"""`effc::grouped_linear`: one linear layer per row, chosen among experts."""
