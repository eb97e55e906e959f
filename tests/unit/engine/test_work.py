"""A slide's working folder: its name, its plan, and the file that it belongs to."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.runs import small_files
from helpers.trainings import spec_for
from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import SlideSection
from quadrat.core.errors import SlideError, WriteError
from quadrat.core.objects import Frame
from quadrat.engine.work import SlidePlan, SlideWork, unchanged
from quadrat.slides.tissue.mask import TissueMap

FRAME = Frame(height=64, width=60, mpp=0.5, scale_row=2.0, scale_col=2.5)
COARSE = Frame(height=8, width=8, mpp=4.0, scale_row=16.0, scale_col=18.75)
PLAN = SlidePlan(
    name="a",
    frame=FRAME,
    cells=((0, 0), (3, 1)),
    tissue_mm2=0.25,
    tissue_frame=COARSE,
    reader="native",
    format="generic-tiff",
    slide_mpp=0.25,
    mpp_source="file",
    excluded=(("glass", 0.125), ("pen", 0.5)),
)


def test_a_plan_and_its_tissue_are_read_back_as_they_were_saved(tiny):
    work = tiny.work()
    mask = np.random.default_rng(0).random((8, 8)) < 0.5
    tissue = TissueMap(mask, COARSE)
    assert not work.has_plan
    work.save_plan(PLAN, tissue)
    assert work.has_plan
    assert work.load_plan() == PLAN
    assert np.array_equal(work.load_tissue().mask, mask)
    assert work.load_tissue().frame == COARSE


def test_everything_of_a_slide_lies_below_its_own_folder(tiny):
    work = tiny.work("a")
    assert work.path == tiny.out / "run" / "work" / "a"
    places = (work.journal, work.result, work.tiles, work.image, work.predictions,
              work.selection, work.first_ids, work.part((1, 2)))  # fmt: skip
    assert all(work.path in place.parents for place in places)
    assert len(set(places)) == len(places)


def test_a_file_that_changes_while_it_is_read_is_noticed_before_and_after(tiny):
    work = tiny.work()
    with unchanged(work):
        pass
    path = Path(work.ref.path)
    whole = path.read_bytes()
    with pytest.raises(SlideError, match="begun anew"), unchanged(work):
        path.write_bytes(whole + b"more")
    with pytest.raises(SlideError, match="begun anew"), unchanged(work):
        raise AssertionError("it is not even begun")
    path.write_bytes(whole)
    with unchanged(work):
        os.utime(path, (0, 0))  # staging changes times, not the content


def test_the_change_is_the_reason_and_not_what_was_made_of_half_a_file(tiny):
    work = tiny.work()

    def read(*, replaced):
        with unchanged(work):
            if replaced:
                Path(work.ref.path).write_bytes(b"half")
            raise SlideError("truncated")

    with pytest.raises(SlideError, match="truncated"):
        read(replaced=False)
    with pytest.raises(SlideError, match="replaced or changed"):
        read(replaced=True)


def test_a_plan_on_a_full_disk_is_told_by_its_file_and_nothing_half_is_left(tmp_path):
    work = SlideWork(
        SlideRef("a", "a.png"),
        str(tmp_path / "a"),
        spec_for("instance"),
        SlideSection(),
        "instance",
        "",
    )
    told = rf"{tmp_path}/a/tissue.npy: cannot be written \(File too large\); make room"
    with small_files(20_000), pytest.raises(WriteError, match=told):
        work.save_plan(None, SimpleNamespace(codes=np.zeros((200, 200), np.uint8)))
    assert not list((tmp_path / "a").iterdir())
