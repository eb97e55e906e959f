"""Comms of dask are unauthenticated: nothing that quadrat starts may listen beyond this machine."""

from pathlib import Path

import pytest

from quadrat.engine.cluster import open_executor

TABLES = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
LISTEN = "0A"
LOOPBACK = ("0100007F", "00000000000000000000000001000000")


def listening() -> set[str]:
    """Local ``address:port`` (hex) of every listening socket."""
    rows = [
        line.split()
        for table in TABLES
        if table.exists()
        for line in table.read_text().splitlines()[1:]
    ]
    return {row[1] for row in rows if row[3] == LISTEN}


@pytest.mark.skipif(
    not TABLES[0].exists(),
    reason="listening sockets are read from /proc/net, which this system lacks",
)
def test_the_embedded_cluster_listens_on_loopback_only():
    before = listening()
    with open_executor(workers=1, threads=1):
        new = listening() - before
    assert new, "the cluster must be listening somewhere, or this test sees nothing"
    assert all(address.split(":")[0] in LOOPBACK for address in new), new
