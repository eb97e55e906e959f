"""Pixels and predictions on disk: zarr stores with checksums and one writer per shard."""
