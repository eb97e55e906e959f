"""Where benchmarks find public samples, and how a benchmark ends that cannot find them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

REAL_SLIDE = "wsi/CMU-1-Small-Region.svs"
"""The slide that most benchmarks read: 2,220 x 2,967 px at 0.499 um/px (CC0)."""


def sample(name: str) -> Path:
    """A public sample by its name in data/registry.csv, in the folder QUADRAT_DATA.

    Without it there is nothing to measure: the benchmark says so, in words and as its JSON line,
    and ends with exit code 0.
    """
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        leave_out(f"QUADRAT_DATA is not set; it names the folder that holds {name}")
    path = Path(folder) / name
    if not path.exists():
        leave_out(f"{path} is missing (data/README.md says where it is from)")
    return path


def leave_out(reason: str) -> NoReturn:
    """End the benchmark without figures."""
    print(f"left out: {reason}")
    print(json.dumps({"left_out": reason}))
    sys.exit(0)
