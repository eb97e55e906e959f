"""Commands that permissions bind, also where the tests run as root."""

import os
import subprocess
import sys
from functools import cache

import pytest

STRANGER = 54321
"""A user without a name, a home folder or a file of its own."""
READ = "-all,+dac_read_search"


@cache
def as_a_stranger():
    """What to put before a command so that it may read all and write only what all may write; skips
    the test where that is impossible."""
    if os.geteuid() != 0:
        return ()
    words = (
        "setpriv",
        f"--reuid={STRANGER}",
        f"--regid={STRANGER}",
        "--clear-groups",
        f"--inh-caps={READ}",
        f"--ambient-caps={READ}",
        f"--bounding-set={READ}",
    )
    try:
        subprocess.run([*words, sys.executable, "-c", "0"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", b"").decode().strip() or error
        pytest.skip(f"root cannot become another user here: {why}")
    return words
