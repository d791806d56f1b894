"""The product of an activated gate and a value."""
