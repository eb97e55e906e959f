"""From annotated slides to a model package."""
