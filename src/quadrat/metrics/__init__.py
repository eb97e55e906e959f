"""Figures of agreement between truth and result: pure functions of arrays, addable where slides are
streamed."""
