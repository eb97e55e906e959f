import pytest
import torch

from helpers.places import THREE, Place, write_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Six annotated pictures; never changed."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def place(tmp_path, pictures):
    """A folder with a manifest of three pictures and a pipeline."""
    return Place(tmp_path, pictures).manifest(*THREE).write()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Torch's sums do not depend on the machine."""
    torch.set_num_threads(1)
