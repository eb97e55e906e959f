"""Leases as another process would have left them."""

import json
from dataclasses import replace
from pathlib import Path

from quadrat.core.records import to_json
from quadrat.engine.holder import this_process

NOBODY = 2**22 + 1
"""A process id that the kernel never gives."""


def started(pid):
    """When a process started, in ticks since the start of the kernel."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def signed(path, *, number=1, pid=NOBODY, **changes):
    """The file of a lease ``path`` (folder and name) that another process of this host took."""
    holder = replace(this_process(path.name), pid=pid, **changes)
    if pid != NOBODY and "started" not in changes:
        holder = replace(holder, started=started(pid))
    file = path.with_name(f"{path.name}.lease.{number}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(to_json(holder)))
    return file
