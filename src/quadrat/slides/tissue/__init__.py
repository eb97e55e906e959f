"""Where on a slide to look."""
