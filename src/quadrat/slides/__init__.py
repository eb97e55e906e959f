"""Slides: one RGB picture in pyramid levels, read by box in the pixels of a level."""
