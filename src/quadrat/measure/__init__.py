"""From results on disk to one tidy table: counts, areas, shapes, ratios and distances by region."""
