"""What the user asked for: the pipeline file, the manifest, the splits."""
