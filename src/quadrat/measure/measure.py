"""``quadrat measure``: the results of a run, slide by slide, into one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadrat.annotations.origin import Origin
from quadrat.config.manifest import SlideRef
from quadrat.config.measure import MeasureFile, load_measure_file
from quadrat.config.splits import case_of
from quadrat.core.errors import ConfigError
from quadrat.engine.drivers import slides_asked
from quadrat.measure.hotspot_files import HotspotFiles, hotspots_of
from quadrat.measure.plan import Plan, plan_for
from quadrat.measure.pooled import Pool, case_figures, cohort_figures
from quadrat.measure.regions import Region, read_regions
from quadrat.measure.results import finished
from quadrat.measure.rois import RoiFiles, Within, find_rois, read_within
from quadrat.measure.rows import TABLE, MeasurementWriter, Place
from quadrat.measure.slide import Measured, load_slide, measure_slide
from quadrat.outputs.results import SlideResult


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    out: Path
    """The run's folder."""
    rois: Path | None = None
    """A folder or a manifest of files of regions, or one such file."""
    pipeline: Path | None = None
    """A measurement file."""
    within: tuple[str, ...] = ()
    """Regions of other runs, each as NAME=FOLDER:CLASS."""
    shapes: bool = True
    """Distributions of size and shape."""
    without_filled: bool = False
    """Gaps and holes that were filled do not count as analysed."""
    to: Path | None = None
    """Folder of the tables; None: that of the run."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was measured."""

    slides: int
    """How many slides."""
    rows: int
    """Of the table."""
    table: Path
    """measurements.csv."""
    notes: tuple[str, ...]
    """What was understood otherwise than it stands there, or left out."""


def measure(wanted: Wanted, *, say: Callable[[str], None] = lambda text: None) -> Written:
    """Measure all finished slides of a run. ``say`` hears of each slide.

    Raises:
        ConfigError: no results, or what is asked for does not fit them.
        AnnotationError: a file of regions cannot be used. (In both cases no table is written.)
        WriteError: the table cannot be written.
    """
    results = finished(wanted.out)
    names = [one.name for one in results]
    file = MeasureFile() if wanted.pipeline is None else load_measure_file(wanted.pipeline)
    plan = plan_for(results, file, shapes=wanted.shapes, without_filled=wanted.without_filled)
    rois = RoiFiles({}) if wanted.rois is None else find_rois(wanted.rois, names)
    within = [read_within(text) for text in wanted.within]
    asked = slides_asked(wanted.out) | dict(rois.refs or {})
    read = {one.name: drawn_regions(one, rois, asked, file.regions_origin) for one in results}
    _check_names(within, [region for regions, _ in read.values() for region in regions])
    notes = [*rois.notes, *(note for _, more in read.values() for note in more)]
    folder, run, pool = wanted.to or wanted.out, wanted.out.resolve().name, Pool()
    unit = results[0].summary.frame.unit
    with MeasurementWriter(folder) as writer, HotspotFiles(folder, plan.hotspots, unit) as spots:
        rows = 0
        for result in results:
            regions = [*read[result.name][0], *(one.region(result) for one in within)]
            case = case_of(asked.get(result.name, SlideRef(result.name, "")))
            loaded = load_slide(result, plan, ref=asked.get(result.name), to=folder)
            kept: list[Measured] = []
            for one in measure_slide(loaded, regions, plan):
                place = Place(run, result.name, case, one.region.name, one.region.class_name)
                rows += writer.add(place, one.figures)
                kept.append(one)
            found = hotspots_of(loaded, plan.hotspots)
            for place, figures in spots.add(Place(run, result.name, case, "", ""), found):
                rows += writer.add(place, figures)
            pool.add(case, kept)
            say(f"{result.name}: {len(loaded.objects):,} objects, {len(regions)} regions")
        rows += _write_pooled(writer, pool, results, plan, run)
    return Written(len(results), rows, folder / f"{TABLE}.csv", tuple(dict.fromkeys(notes)))


def drawn_regions(
    result: SlideResult, rois: RoiFiles, asked: Mapping[str, SlideRef], origin: Origin
) -> tuple[list[Region], tuple[str, ...]]:
    """The regions that were drawn on a slide, and notes on them."""
    path = rois.of.get(result.name)
    if path is None:
        note = f"{result.name}: no file of regions; measured as a whole"
        return [], (note,) if rois.of else ()
    picture = asked[result.name].path if result.name in asked else ""
    frame = result.summary.frame
    return read_regions(path, frame=frame, picture=picture, slide=result.name, origin=origin)


def _check_names(within: Sequence[Within], drawn: Sequence[Region]) -> None:
    """Raises ConfigError where a region of another run is called as another region."""
    taken = {region.name for region in drawn}
    for one in within:
        if one.name in taken:
            raise ConfigError(
                f"--within {one.source}: another region is called '{one.name}'; choose another name"
            )
        taken.add(one.name)


def _write_pooled(
    writer: MeasurementWriter, pool: Pool, results: Sequence[SlideResult], plan: Plan, run: str
) -> int:
    """The rows of cases, by name, and of all cases."""
    classes, unit = results[0].class_names, results[0].summary.frame.unit
    rows = 0
    for case in sorted(pool.tallies):
        for key, figures in case_figures(pool, case, classes, plan, unit=unit):
            rows += writer.add(Place(run, "", case, *key), figures)
    for key, figures in cohort_figures(pool, classes, plan, unit=unit):
        rows += writer.add(Place(run, "", "", *key), figures)
    return rows
