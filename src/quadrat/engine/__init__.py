"""Slides through their steps: a run, its workers, its journal, its results."""
