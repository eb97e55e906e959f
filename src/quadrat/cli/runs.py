"""``quadrat run`` and its parts: slides taken from file to results, or to a stage before."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from quadrat.cli.options import Common, Mpp, Name
from quadrat.core.errors import ConfigError, SlideError
from quadrat.core.text import aligned
from quadrat.core.unit import PX, plain_area

if TYPE_CHECKING:
    from quadrat.config.manifest import SlideRef
    from quadrat.config.pipeline import Pipeline
    from quadrat.engine.report import RunReport

Slide = Annotated[Path, Parameter(metavar="SLIDE")]
KEEP = 'run.keep=["tiles","predictions"]'


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Which slides a run takes, and where it writes."""

    manifest: Path | None = None
    """CSV with the columns slide, mpp, label, ..."""
    out: Path = Path("quadrat_out")
    """folder of the run"""
    mpp: Mpp = None
    """um/px of all given slides, instead of what the files state"""
    scene: str = ""
    """which of several pictures in the given slides' files, by name or number (for a batch:
    manifest column 'scene')"""
    regions: Annotated[Path | None, Parameter(metavar="GEOJSON")] = None
    """regions to include or exclude on the one given slide (QuPath; for a batch: manifest column
    'regions')"""
    part: Annotated[str, Parameter(metavar="I/N")] = ""
    """only every N-th slide from the I-th on, for the tasks of a job array; 'array': I and N as
    SLURM says"""
    overwrite: bool = False
    """replace results and kept stores of other settings"""
    retry_failed: bool = False
    """take slides again that failed before with the same file and settings"""
    max_failures: Annotated[int | None, Parameter(metavar="N")] = None
    """begin no more slides when so many have failed"""
    fail_fast: bool = False
    """the same as --max-failures 1"""

    def slides(self, given: Sequence[Path]) -> list[SlideRef]:
        """The slides of the arguments, or of the manifest.

        Raises:
            ConfigError: both, none, a pattern without a file, or ``--regions`` for several.
        """
        from quadrat.config.manifest import read_manifest, slides_from_paths, with_mpp

        if self.manifest is not None and given:
            raise ConfigError("give slides or --manifest, not both")
        paths = found(given, quiet=self.quiet)
        if self.regions is not None and len(paths) != 1:
            raise ConfigError(
                "--regions belongs to one slide; for several, give a manifest with the column "
                "'regions'"
            )
        if self.manifest is None:
            refs = slides_from_paths(list(map(str, paths)), mpp=self.mpp)
            return [replace(ref, regions=str(self.regions or ""), scene=self.scene) for ref in refs]
        refs = with_mpp(read_manifest(self.manifest), self.mpp)
        return [replace(ref, scene=ref.scene or self.scene) for ref in refs]


DEFAULTS = Options()


def part_of(slides: Sequence[SlideRef], part: str) -> Sequence[SlideRef]:
    """Every N-th slide from the I-th on; all parts together are all slides.

    Raises:
        ConfigError: ``part`` is not I/N with 1 <= I <= N, or "array" outside a job array.
    """
    if part == "array":
        words = [os.environ.get(f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "COUNT")]
        if None in words:
            raise ConfigError(
                "--part array is for the tasks of a SLURM job array (SLURM_ARRAY_TASK_ID is not "
                "set); give it as --part 1/4"
            )
        step = int(os.environ.get("SLURM_ARRAY_TASK_STEP", "1"))
        task, first, count = (int(word) for word in words if word is not None)
        part = f"{(task - first) // step + 1}/{count}"
    number, _, count_word = part.partition("/")
    if not (number.isdecimal() and count_word.isdecimal() and 1 <= int(number) <= int(count_word)):
        raise ConfigError(f"--part is {part}; it must be I/N with I from 1 to N, such as 2/4")
    return slides[int(number) - 1 :: int(count_word)]


def found(given: Sequence[Path], *, quiet: bool = False) -> list[Path]:
    """The slides that arguments name: a file or folder that is a slide is itself; any other folder
    is all slides in it (not below), a pattern all that match, both sorted, and their number is
    printed on stderr. A folder without slides is itself, so that whoever opens it says what it is.

    Raises:
        ConfigError: nothing matches a pattern.
    """
    slides = []
    for path in (Path(os.path.expanduser(path)) for path in given):
        several = [path]
        if path.is_dir():
            several = _in_folder(path)
        elif not path.exists() and glob.has_magic(str(path)):
            several = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            if not several:
                raise ConfigError(f"no file matches {path}")
        if several != [path] and not quiet:
            print(f"{path}: {len(several)} slides", file=sys.stderr)
        slides += several
    return slides


def _in_folder(folder: Path) -> list[Path]:
    from quadrat.cli.init.finding import slides_below, slides_in
    from quadrat.slides.dicom_series import holds_dicom
    from quadrat.slides.recognise import recognise

    try:
        places = {file.parent for file in recognise(folder).files}
        if len(places) == 1 and places != {folder}:  # its DICOM slide has a folder of its own
            return list(slides_in(folder)) or [folder]
    except SlideError:
        with contextlib.suppress(OSError):  # then the error of the folder itself is reported
            inside = list(slides_in(folder))
            below = [] if inside else list(slides_below(folder))
            if below and not any(map(holds_dicom, filter(Path.is_dir, below))):
                raise ConfigError(
                    f"{folder} holds no slide itself, but the folders below it hold {len(below)}; "
                    f"name them by a pattern in quotes: '{folder}/**/*{below[0].suffix}'"
                ) from None
            return inside or [folder]
    return [folder]


def run(pipeline: Name, /, *slides: Slide, options: Options = DEFAULTS) -> int:
    """From slides to results: infer, stitch, write.

    The same command again skips what is done and goes on where it stopped.

    examples:
      quadrat run nuclei a.svs b.ndpi --out out
      quadrat run nuclei slides/ -j 8            all slides of a folder
      quadrat run nuclei 'slides/**/*.svs'       all that match a pattern
      quadrat run my.yaml --manifest slides.csv  a batch; CSV: slide, mpp, ...
      quadrat run nuclei old.svs --mpp 0.5       a slide that states no mpp
      quadrat run nuclei a.svs --regions a.geojson

    Args:
        pipeline: a shipped pipeline's name (quadrat pipelines), or a YAML file
        slides: slides, folders of slides, or quoted patterns
    """
    return _run(pipeline, slides, options)


def tile(pipeline: Name, /, *slides: Slide, options: Options = DEFAULTS) -> int:
    """Read the tissue of slides into zarr tile stores.

    They are kept under OUT/run/work.

    examples:
      quadrat tile nuclei slide.svs --out out
      quadrat tile my.yaml --manifest slides.csv -j 4

    Args:
        pipeline: a shipped pipeline's name, or a YAML file
        slides: slides, folders of slides, or quoted patterns
    """
    return _run(pipeline, slides, options, 'run.keep=["tiles"]', until="tile")


def predict(pipeline: Name, /, *slides: Slide, options: Options = DEFAULTS) -> int:
    """Infer; the predictions are kept.

    They lie under OUT/run/work; 'quadrat stitch' makes results of them.

    examples:
      quadrat predict nuclei slide.svs --out out
      quadrat predict my.yaml --manifest slides.csv -j 4

    Args:
        pipeline: a shipped pipeline's name, or a YAML file
        slides: slides, folders of slides, or quoted patterns
    """
    return _run(pipeline, slides, options, KEEP, until="predict")


def stitch(pipeline: Name, /, *slides: Slide, options: Options = DEFAULTS) -> int:
    """Merge kept predictions into results.

    Other thresholds need no inference.

    Predictions are kept by 'quadrat predict', or by
    --set 'run.keep=["tiles","predictions"]'.

    examples:
      quadrat stitch nuclei slide.svs --out out
      quadrat stitch nuclei slide.svs --set thresholds.seed=0.6 --overwrite

    Args:
        pipeline: a shipped pipeline's name, or a YAML file
        slides: slides, folders of slides, or quoted patterns
    """
    return _run(pipeline, slides, options, KEEP, infer=False)


def _run(
    name: str,
    given: Sequence[Path],
    options: Options,
    *keep: str,
    until: str = "results",
    infer: bool = True,
) -> int:
    pipeline = options.pipeline(name, *keep)
    if options.mpp is not None and pipeline.model.unit == PX:
        raise ConfigError(
            f"--mpp is {options.mpp:g}, but model.mpp of {pipeline.name} is px: in pixels no scale "
            "is used; leave --mpp out"
        )
    slides = options.slides(given)
    slides = list(part_of(slides, options.part) if options.part else slides)
    from quadrat.engine.finished import finished_run

    plain = until == "results" and infer and not (options.overwrite or options.retry_failed)
    report = finished_run(pipeline, slides, options.out) if plain else None
    if report is not None:
        options.reporter().say(f"nothing to do: all {len(slides)} slides were finished before")
    else:
        report = _take(pipeline, slides, options, until=until, infer=infer)
    for line in _table(report):
        print(line)
    if until == "results":
        print(f"results: {options.out / 'results'}")
    return report.exit_code


def _take(
    pipeline: Pipeline, slides: Sequence[SlideRef], options: Options, *, until: str, infer: bool
) -> RunReport:
    from quadrat.engine.cluster import processes
    from quadrat.engine.run import run
    from quadrat.engine.small import are_small

    section = pipeline.run
    unasked = section.cluster == "local" and section.workers is None and options.cluster is None
    alone = unasked and are_small(pipeline, slides)
    return run(
        pipeline,
        slides,
        options.out,
        until=until,
        overwrite=options.overwrite,
        infer=infer,
        retry_failed=options.retry_failed,
        max_failures=1 if options.fail_fast else options.max_failures,
        workers=0 if alone else processes(section),
        cluster=section.cluster,
        reporter=options.reporter(),
    )


def _table(report: RunReport) -> list[str]:
    """Slides by rows, in aligned columns; a failed slide shows its reason instead of figures."""
    rows = report.rows
    names = list(dict.fromkeys(name for row in rows for name, _ in row.figures))
    area = plain_area("px" if any(row.unit == PX for row in rows) else "um")
    cells = [
        ["slide", "status", f"tissue {area}", *(name.removeprefix("count_") for name in names)]
    ]
    for row in rows:
        figures = dict(row.figures)
        tissue = "" if row.tissue_mm2 is None else f"{row.tissue_mm2:.2f}"
        cells.append([row.slide, row.status, tissue, *(figures.get(name, "") for name in names)])
    first, *lines = aligned(cells)
    return [first, *(f"{a}  {row.reason}".rstrip() for a, row in zip(lines, rows, strict=True))]
