"""Where on a slide to look: tissue, and why the rest is left out."""
