"""Families `draft-*`: three small drafters of `lm`, each for one kind of text."""
