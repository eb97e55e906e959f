"""Annotations: what people drew, read from many formats, checked, and turned into what is
learnt."""
