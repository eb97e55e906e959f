"""Certificates of one run: whoever has its private folder may talk to its scheduler and workers,
nobody else."""

from __future__ import annotations

from pathlib import Path

from distributed.security import Security

from quadrat.core.files import write_file

CERTIFICATE, KEY = "certificate.pem", "key.pem"
"""Files next to a scheduler file. The certificate is its own authority."""


def write_certificates(folder: Path) -> Security:
    """Make certificates that go with a run, in a folder that only this user can look into."""
    made = Security.temporary()
    for name, text in ((CERTIFICATE, made.tls_ca_file), (KEY, made.tls_scheduler_key)):
        write_file(folder / name, text)
        (folder / name).chmod(0o600)
    found = read_certificates(folder)
    assert found is not None
    return found


def read_certificates(folder: Path) -> Security | None:
    """Those that lie in a folder; None: there are none."""
    certificate, key = str(folder / CERTIFICATE), str(folder / KEY)
    if not Path(certificate).is_file() or not Path(key).is_file():
        return None
    roles = ("client", "scheduler", "worker")
    files = {f"tls_{role}_cert": certificate for role in roles}
    files |= {f"tls_{role}_key": key for role in roles}
    return Security(require_encryption=True, tls_ca_file=certificate, **files)


def words_for_workers(folder: Path) -> list[str]:
    """What tells a worker on its command line that they lie in a folder."""
    certificate, key = str(folder / CERTIFICATE), str(folder / KEY)
    return ["--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key]


def configured() -> Security | None:
    """What dask's own configuration names (``distributed.comm.tls``); None: nothing."""
    found = Security()
    complete = getattr(found, "tls_ca_file", "") and getattr(found, "tls_client_cert", "")
    return found if complete else None
