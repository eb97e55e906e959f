"""Figures of agreement between truth and result: pure functions of arrays, which can be summed over
slides."""
