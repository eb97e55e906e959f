"""Pixels and predictions on disk, in zarr, checked."""
