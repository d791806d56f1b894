"""Tasks whose right answers are known: items that anyone can make again from a seed."""
