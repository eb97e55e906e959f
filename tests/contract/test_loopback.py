"""Nothing that quadrat starts listens beyond this machine, and nobody on it can send work to its
workers without the certificate of the run."""

import re
from pathlib import Path

import pytest
from distributed import Client
from distributed.security import Security

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


def test_another_user_of_the_machine_cannot_connect_to_the_embedded_cluster():
    stranger = Security.temporary()
    with open_executor(workers=1, threads=1) as executor:
        (host,) = {address.rpartition(":")[0] for address in executor.addresses}
        assert host == "tls://127.0.0.1"
        for address in executor.addresses:
            plain = re.sub("^tls", "tcp", address)
            for to, security in ((address, stranger), (plain, None)):
                with pytest.raises(OSError, match=r"(?i)tls|ssl|timed out|reset|certificate"):
                    Client(to, security=security, timeout=3, set_as_default=False)
