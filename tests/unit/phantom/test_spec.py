"""Settings out of range."""

from collections.abc import Callable
from typing import Any

import pytest

from quadrat.core.errors import ConfigError
from quadrat.phantom import PhantomSpec


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"width": 1999}, "width 1999"),
        ({"height": 100_001}, "height 100001"),
        ({"mpp": 0.0}, "mpp 0.0"),
        ({"mpp": float("nan")}, "mpp nan"),
        ({"tissue_fraction": 1.0}, "tissue_fraction 1.0"),
        ({"dominant": "muscle"}, "muscle"),
        ({"seed": -1}, "seed -1"),
        ({"name": "../a"}, "file name"),
    ],
)
def test_a_setting_out_of_range_is_named(change: dict[str, Any], word: str) -> None:
    make: Callable[..., PhantomSpec] = PhantomSpec
    with pytest.raises(ConfigError, match=word):
        make(**({"name": "a", "width": 2048, "height": 2048, "seed": 1} | change))
