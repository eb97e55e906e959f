"""Values that everything else is made of, and the one way a file is written."""
