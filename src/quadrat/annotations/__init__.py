"""Annotations: what people drew, from many formats, checked and turned into what is learnt."""
