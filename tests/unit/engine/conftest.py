import tempfile
from pathlib import Path

import pytest
import torch

from helpers.tiny import Tiny

MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folder():
    """A folder in memory, where waiting for the disk takes no time."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture
def tiny(folder, monkeypatch):
    """Slides of instances in 16 shards, and the pieces of a run over them."""
    return Tiny(folder, monkeypatch)


@pytest.fixture
def tiny_of(folder, monkeypatch):
    """The same for any task."""
    return lambda task, **options: Tiny(folder / task, monkeypatch, task, **options)
