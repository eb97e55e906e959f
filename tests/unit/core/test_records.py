"""Frozen dataclasses to JSON and back."""

import json
from dataclasses import dataclass

import pytest

from quadrat.core.geometry import Box
from quadrat.core.lattice import ShardIndex
from quadrat.core.objects import Frame
from quadrat.core.records import from_json, to_json


@dataclass(frozen=True, slots=True)
class Inner:
    box: Box
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    shards: tuple[ShardIndex, ...]
    inner: Inner
    shares: dict[str, float]
    size: int | float = 3


WHOLE = Outer("é", ((1, 2), (3, 4)), Inner(Box(0, 1, 2, 3), 0.1 + 0.2), {"a": 1e-300}, 256)


def test_a_record_comes_back_from_its_text_as_it_was():
    text = json.dumps(to_json(WHOLE))
    found = from_json(Outer, json.loads(text))
    assert found == WHOLE
    assert repr(found) == repr(WHOLE), "no number changes its type"


def test_what_a_class_does_not_know_is_left_out_and_defaults_are_filled_in():
    values = to_json(WHOLE) | {"new": 1}
    del values["size"]
    assert from_json(Outer, values).size == 3


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({}, "name: field required"),
        ({"name": 7}, "name: "),
        ({"inner": {"box": {"row0": 0}}}, r"inner\.box\.col0: field required"),
        ({"shards": [[1]]}, r"shards\.0\.1: "),
        ({"shares": {"a": "many"}}, r"shares\.a: "),
        ([], "Outer: "),
        (None, "Outer: "),
    ],
)
def test_what_is_missing_or_of_another_type_is_named(values, place):
    whole = to_json(WHOLE) | values if isinstance(values, dict) and values else values
    with pytest.raises(ValueError, match=place):
        from_json(Outer, whole)


def test_values_are_checked_by_the_class_itself_too():
    values = to_json(WHOLE)
    values["inner"]["box"]["row1"] = -5
    with pytest.raises(ValueError, match="negative side"):
        from_json(Outer, values)


@dataclass(frozen=True, slots=True)
class Depth:
    deep_um: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A record with lengths, in a frame, and with names that are the user's."""

    frame: Frame
    near_um: float
    area_mm2: float | None
    parts: tuple[Inner | None, ...]
    side_px: int
    of_class: dict[str, float]
    deeper: Depth | Inner


def measured(unit):
    frame = Frame(height=3, width=4, mpp=1.0, scale_row=1.0, scale_col=1.0, unit=unit)
    inner = Inner(Box(0, 1, 2, 3), 0.5)
    return Measured(frame, 2.5, 0.1, (inner, None), 7, {"cell_um": 1.0, "cell_px": 2.0}, Depth(3.0))


def test_a_record_in_px_has_other_names_no_mpp_and_comes_back():
    values = json.loads(json.dumps(to_json(measured("px"), unit="px")))
    assert values["frame"] == {
        "height": 3, "width": 4, "scale_row": 1.0, "scale_col": 1.0, "unit": "px"
    }  # fmt: skip
    assert set(values) == {"frame", "near_px", "area_mpx", "parts", "side_px", "of_class", "deeper"}
    assert values["of_class"] == {"cell_um": 1.0, "cell_px": 2.0}, "names of users stay"
    assert values["deeper"] == {"deep_px": 3.0}
    assert from_json(Measured, values) == measured("px")


def test_a_record_in_um_does_not_speak_of_units():
    values = json.loads(json.dumps(to_json(measured("um"))))
    assert "unit" not in values["frame"]
    assert values["frame"]["mpp"] == 1.0
    assert from_json(Measured, values) == measured("um")
    del values["frame"]["mpp"]
    with pytest.raises(ValueError, match=r"frame\.mpp: field required"):
        from_json(Measured, values)


def test_a_coarse_frame_in_px_has_its_scale_for_mpp():
    """The mask of a large slide in pixel work: it used to come back with 1 px per px."""
    coarse = Frame(height=3, width=4, mpp=5.0, scale_row=5.0, scale_col=5.0, unit="px")
    assert from_json(Frame, json.loads(json.dumps(to_json(coarse)))) == coarse
