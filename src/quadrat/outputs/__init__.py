"""Files that other programs open: tables, GeoJSON, GeoParquet, pictures."""
