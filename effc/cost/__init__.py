"""What a plan should cost: bytes, FLOPs, and the time no machine can go below."""
