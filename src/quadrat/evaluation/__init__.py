"""How good a model is: the figures of results on disk against annotations."""
