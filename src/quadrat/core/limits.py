"""Limits that several rooms know; without numpy, so that reading a pipeline file stays quick."""

MPP_MIN, MPP_MAX = 0.05, 40.0
"""Plausible range of um/px. Values outside come from a broken header, not from a microscope."""
WALLTIME = r"(\d+-)?\d+(:\d{2}){1,2}"
"""How SLURM writes the time of a job (a regular expression): HH:MM:SS, MM:SS or D-HH:MM:SS."""
