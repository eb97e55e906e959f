import os
from pathlib import Path

import pytest

from quadrat.slides import openslide as openslide_module


@pytest.fixture
def wsi() -> Path:
    folder = os.environ.get("QUADRAT_DATA")
    if folder is None:
        pytest.skip("QUADRAT_DATA names no folder of real slides")
    return Path(folder) / "wsi"


@pytest.fixture
def openslide_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openslide_module, "NATIVE_VENDORS", ())
