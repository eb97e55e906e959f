"""Phantoms: synthetic H&E slides with exact truth, for demonstrations, tests and benchmarks.

write_phantom(folder, spec=PhantomSpec(name="demo", width=2048, height=2048, seed=1))
"""

from quadrat.phantom.spec import NUCLEUS_NAMES, REGION_NAMES, PhantomFiles, PhantomSpec
from quadrat.phantom.write import write_phantom

__all__ = ["NUCLEUS_NAMES", "REGION_NAMES", "PhantomFiles", "PhantomSpec", "write_phantom"]
