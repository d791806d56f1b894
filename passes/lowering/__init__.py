"""From canonical operators to what the runtime executes."""
