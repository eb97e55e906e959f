"""Ways out and in: other tools' objects as results, results as other tools' files, figures, and
results and counts in Python."""
