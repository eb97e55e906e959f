"""One file per annotation format: each turns its files into records."""
