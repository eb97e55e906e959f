"""Stitching: predictions of shards become the objects, regions and classes of a slide (pure)."""
