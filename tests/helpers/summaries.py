"""summary.json of made-up results, as a run writes it."""

from quadrat.core.objects import ClassInfo
from quadrat.core.seams import Contrast, SeamFigures
from quadrat.outputs.summary import (
    AreaFigures,
    MppNote,
    ObjectFigures,
    PackageNote,
    Provenance,
    ReaderNote,
    ScoreFigures,
    SlideFigures,
    Summary,
)
from quadrat.outputs.tables import ALL, CountRow

CLASSES = (ClassInfo("a", (228, 26, 28)), ClassInfo("b", (55, 126, 184)))
NO_SIGN = Contrast(near=1.5, inside=1.25, value=1.2, low=None, high=None, objects=7)
SEAMS = SeamFigures(
    verdict="too little to judge",
    sign_of_seams=False,
    pitch_px=256,
    seams=24,
    blocks=16,
    near_um=9.5,
    confidence=0.99,
    density=NO_SIGN,
    straight_edges=NO_SIGN,
    duplicates=NO_SIGN,
)
COUNTS = (
    CountRow("a", 3, 1.5, 0.25, 0.125, None),
    CountRow("b", 0, 0.0, 0.0, 0.0, None),
    CountRow(ALL, 3, 1.5, 0.25, 0.125, 8.5),
)
OBJECTS = ObjectFigures(COUNTS, capped_objects=1, seams=SEAMS)
SCORES = ScoreFigures("b", {"a": 0.25, "b": 0.75}, {"a": 1, "b": 3})


def summary_of(
    frame,
    *,
    task="instance",
    answer=OBJECTS,
    thresholds=None,
    weights="0" * 64,
    damaged=(),
    fingerprint="f" * 64,
):
    """A finished slide called ``s``."""
    return Summary(
        slide="s",
        task=task,
        fingerprint=fingerprint,
        frame=frame,
        reader=ReaderNote("generic-tiff", "native"),
        slide_mpp=MppNote(frame.mpp, "file"),
        cores=12,
        thresholds=thresholds or {},
        figures=SlideFigures(AreaFigures(2.0, {"glass": 0.5}, damaged), answer),
        provenance=Provenance(
            PackageNote(weights, {"promise": "tiling-exact", "halo_px": 48}),
            CLASSES,
            "p",
            {"torch": "2"},
            1,
            "cpu",
        ),
    )
