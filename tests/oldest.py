"""Prints the constraints of `make oldest`: each dependency of pyproject.toml at its lower bound.

    python tests/oldest.py pyproject.toml > constraints.txt

The bounds stand in one place, and a dependency without one is an error. Only Python's own library
is used, since this runs before anything is installed.
"""

import re
import sys
import tomllib
from pathlib import Path

BOUND = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?\s*>=\s*(?P<version>[0-9][0-9a-z.]*)")


def constraints(pyproject: str) -> list[str]:
    """``name==version`` for each dependency, in the order of the file.

    Raises:
        ValueError: a dependency has no lower bound.
    """
    found = []
    for dependency in tomllib.loads(pyproject)["project"]["dependencies"]:
        bound = BOUND.match(dependency)
        if bound is None:
            raise ValueError(f"{dependency!r} has no lower bound; write NAME>=VERSION")
        found.append(f"{bound['name']}=={bound['version']}")
    return found


if __name__ == "__main__":
    sys.stdout.write("\n".join(constraints(Path(sys.argv[1]).read_text(encoding="utf-8"))) + "\n")
