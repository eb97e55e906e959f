"""quadrat: one trustworthy answer a whole slide, from training to the count."""

__version__ = "0.1.0"
