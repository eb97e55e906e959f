"""The slide and its tile store are one PixelSource: the same pixels, and the same predictions bit
for bit."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import SlideSection
from quadrat.core.geometry import Box
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo
from quadrat.engine.opened import Opened, open_work_source
from quadrat.engine.steps import (
    TileJob,
    create_predictions,
    create_tiles,
    infer_shards,
    plan_slide,
    tile_shards,
    windows_of,
)
from quadrat.engine.view import WorkView
from quadrat.engine.work import SlideWork
from quadrat.models.task import ModelSpec
from quadrat.slides.identity import slide_identity
from quadrat.store.tiles import TileStore
from quadrat.tasks import get_task

DATA = Path(os.environ.get("QUADRAT_DATA", "")) / "wsi"
WITHOUT_MPP = {"TCGA-CR-7395-01A-01-TS1.svs": 0.5, "small_HE_levels.tiff": 1.0}
SLIDES = {
    "CMU-1-Small-Region.svs": (0.499, 0.71, 2.0),
    "TCGA-CR-7395-01A-01-TS1.svs": (1.0, 1.37),
    "generic_tiff_asap/example.tif": (0.987, 1.5),
    "small_HE_levels.tiff": (1.0, 1.7),
    "test3-TRITC-2-560.ndpi": (0.9128, 1.1),
    "dicom_cmu-1-small-region_mistagged_rgb": (0.998, 0.8),
    "dicom_camelyon_jpeg": (28.97, 37.0),
}


def spec_for(mpp):
    return ModelSpec(
        task="semantic",
        classes=(ClassInfo("a", (255, 0, 0)), ClassInfo("b", (0, 255, 0))),
        mpp=mpp,
        lattice=Lattice(core=128, halo=48, stride=8, shard=512),
        widths=(8, 12, 16),
        thresholds=dict(get_task("semantic").default_thresholds),
    )


def work_for(slide, mpp, folder):
    return SlideWork(
        ref=SlideRef(name="slide", path=str(slide), mpp=WITHOUT_MPP.get(slide.name)),
        folder=str(folder),
        spec=spec_for(mpp),
        slide=SlideSection(tissue="all"),
        task="semantic",
        identity=slide_identity(str(slide)),
    )


def predictions_of(work, source):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = get_task("semantic").build(work.spec).eval()
    create_predictions(work)
    view = WorkView(work)
    infer_shards(work, model, view.shards, source, Opened(work), device=torch.device("cpu"))
    return view.predictions.read(view.frame.box)


@pytest.mark.parametrize(
    ("name", "mpp"), [(name, mpp) for name, all_mpp in SLIDES.items() for mpp in all_mpp]
)
def test_streamed_and_stored_give_the_same_windows_and_predictions(name, mpp, tmp_path):
    slide = DATA / name
    if not slide.exists():
        pytest.skip("QUADRAT_DATA does not lead to the public samples")
    (tmp_path / "work").mkdir()
    work = work_for(slide, mpp, tmp_path / "work")
    plan_slide(work)
    for shard in reversed(create_tiles(work).shards):
        tile_shards(TileJob(work, (shard,)))
    stored = TileStore.open(work.tiles)
    cells = work.load_plan().cells
    with open_work_source(work) as streamed:
        for window in windows_of(work, [cells[0], cells[len(cells) // 2], cells[-1]]):
            np.testing.assert_array_equal(stored.read(window), streamed.read(window))
        box = stored.frame.box
        part = Box(
            box.height // 3, box.width // 3, box.height // 3 + 100, box.width // 3 + 70
        ).intersect(box)
        assert len(np.unique(streamed.read(part))) > 1, "a picture is seen"
        if box.area < 3_000_000:
            from_slide = predictions_of(work, streamed)
            from_store = predictions_of(work, stored)
            assert len(np.unique(from_slide)) > 5
            np.testing.assert_array_equal(from_store, from_slide)
