import pytest
import torch

from helpers.tiny import Tiny


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Slides of instances, and the pieces of a run over them."""
    return Tiny(tmp_path, monkeypatch)


@pytest.fixture
def tiny_of(tmp_path, monkeypatch):
    """The same for any task."""
    return lambda task, **options: Tiny(tmp_path / task, monkeypatch, task, **options)
