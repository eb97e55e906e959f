"""Exact merging of what the cores of a slide predict: pure functions on integers."""
