"""From decomposed patterns to the canonical operators, exactly."""
