"""``quadrat annotations``: check files, tell what is in them, write them in another format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from quadrat.cli.options import MppOrPx, Name
from quadrat.core.errors import EXIT_FAILED, EXIT_OK, ConfigError
from quadrat.core.text import aligned
from quadrat.core.unit import PX, um_or_none
from quadrat.core.unit import Mpp as Scale

if TYPE_CHECKING:
    from quadrat.annotations.checking import Finding
    from quadrat.annotations.formats.table import Entry
    from quadrat.annotations.items import Item, Loaded
    from quadrat.config.pipeline import Pipeline

Inputs = Annotated[Path, Parameter(metavar="FILE")]
AsJson = Annotated[bool, Parameter(name="--json")]


def check(
    *inputs: Inputs, pipeline: Name | None = None, mpp: MppOrPx = None, as_json: AsJson = False
) -> int:
    """Name every bad record with file and place; nothing is repaired.

    examples:
      quadrat annotations check slides.csv --pipeline my.yaml

    exit codes: 0 all can be used, 1 something is bad or cannot be read,
    2 wrong usage

    Args:
        inputs: a manifest, or annotation files
        pipeline: the classes and the data section that count (and its manifest)
        mpp: um per level-0 px where the manifest states none, instead of what slides state; px:
            work in pixels, as model.mpp px
        as_json: one JSON object
    """
    from quadrat.annotations.checking import (
        check_item,
        orphan_findings,
        shared_files,
        unused_pictures,
    )
    from quadrat.annotations.items import load

    work, items = _items(inputs, pipeline)
    mpp = _scale(work, mpp)
    findings: list[Finding] = []
    loaded: list[Loaded] = []
    records, notes = 0, list[str]()
    for item in items:
        one = load(item, mpp=mpp)
        checked = check_item(one, pipeline=work)
        records += checked.records
        findings += checked.findings
        notes += [f"{item.path}: {note}" for note in checked.notes]
        loaded.append(
            replace(one, sheet=None if one.sheet is None else replace(one.sheet, records=()))
        )  # bounds the memory
    findings += [
        *shared_files(loaded),
        *orphan_findings(loaded),
        *unused_pictures(loaded),
        *_on_two_sides(inputs, items, work),
    ]
    bad = [finding for finding in findings if not finding.warning]
    if as_json:
        body = [asdict(finding) for finding in findings]
        print(
            json.dumps(
                {
                    "slides": len(items),
                    "records": records,
                    "bad": len(bad),
                    "findings": body,
                    "notes": notes,
                },
                indent=2,
            )
        )
        return EXIT_FAILED if bad else EXIT_OK
    for line in [*map(str, findings), *(f"note: {note}" for note in notes)]:
        print(line)
    print(_verdict(len(items), records, findings))
    return EXIT_FAILED if bad else EXIT_OK


def _on_two_sides(
    inputs: Sequence[Path], items: Sequence[Item], pipeline: Pipeline | None
) -> list[Finding]:
    """With a pipeline, what training would refuse of the manifest as a whole: leakage, or no slide
    to learn from."""
    from quadrat.annotations.checking import Finding
    from quadrat.config.leakage import check_training, content_digests

    refs = [item.ref for item in items if item.ref is not None]
    if pipeline is None or not refs:
        return []
    try:
        check_training(refs, content_digests([ref.path for ref in refs]))
    except ConfigError as error:
        return [
            Finding(
                str(inputs[0] if inputs else pipeline.data.manifest),
                "",
                "",
                "",
                "two sides",
                str(error),
                warning=False,
            )
        ]
    return []


def _verdict(slides: int, records: int, findings: Sequence[Finding]) -> str:
    bad = Counter(f.code for f in findings if not f.warning)
    warnings = Counter(f.code for f in findings if f.warning)
    looked = f"{records} records of {slides} slides: "
    parts = [f"{sum(bad.values())} bad ({_counts(bad)})" if bad else "none is bad"]
    return looked + ", ".join(
        parts + ([f"{sum(warnings.values())} warnings ({_counts(warnings)})"] if warnings else [])
    )


def _counts(codes: Counter[Any]) -> str:
    return ", ".join(f"{n} {code}" for code, n in sorted(codes.items()))


def stats(
    *inputs: Inputs,
    pipeline: Name | None = None,
    mpp: MppOrPx = None,
    by: Literal["all", "split", "case", "slide"] = "split",
    as_json: AsJson = False,
) -> int:
    """Counts, areas and diameters of every class.

    examples:
      quadrat annotations stats *.geojson --mpp 0.25
      quadrat annotations stats slides.csv --by case

    exit codes: 0 all can be used, 1 something is bad or cannot be read,
    2 wrong usage

    Args:
        inputs: a manifest, or annotation files
        pipeline: the classes that count (and its manifest)
        mpp: um per level-0 px where the manifest states none, instead of what slides state; px:
            work in pixels, as model.mpp px
        by: what has a row of its own
        as_json: one JSON object
    """
    from quadrat.annotations.items import load
    from quadrat.annotations.statistics import LEVELS, Measures, measure, summaries

    work, items = _items(inputs, pipeline)
    mpp = _scale(work, mpp)
    measures: list[Measures] = []
    left_out, notes = list[str](), list[str]()
    for item in items:
        one = load(item, mpp=mpp)
        left_out += _left_out(one)
        notes += _notes(one)
        if one.sheet is not None:
            records = _named(one, work).sheet
            measures += measure(
                () if records is None else records.records,
                slide=item.slide,
                case=item.case,
                split=item.split,
                mpp=um_or_none(one.mpp),
            )
    if as_json:
        tables = {level: summaries(measures, level) for level in LEVELS}
        head = {"slides": len(items), "left_out": left_out, "notes": notes}
        print(json.dumps(head | tables, indent=2))
    else:
        for line in [*_aligned(summaries(measures, by)), *left_out, *notes]:
            print(line)
    return EXIT_FAILED if left_out else EXIT_OK


def export(
    *inputs: Inputs,
    to: Literal["geojson", "coco", "csv", "parquet"],
    out: Path,
    pipeline: Name | None = None,
    mpp: MppOrPx = None,
    overwrite: bool = False,
) -> int:
    """Write all records as they are in another format.

    Records without a geometry are left out and named, and the exit code is 1.

    examples:
      quadrat annotations export slides.csv --to coco --out all.json

    exit codes: 0 all can be used, 1 something is bad or cannot be read,
    2 wrong usage

    Args:
        inputs: a manifest, or annotation files
        to: the other format
        out: a file; for geojson a folder, with one file per slide
        pipeline: the classes that count (and its manifest)
        mpp: um per level-0 px where the manifest states none, instead of what slides state; px:
            work in pixels, as model.mpp px
        overwrite: replace files that exist
    """
    from quadrat.annotations.formats.table import Entry
    from quadrat.annotations.items import load

    work, items = _items(inputs, pipeline)
    mpp = _scale(work, mpp)
    read = {
        path.resolve()
        for path in (*inputs, *(item.path for item in items if item.path is not None))
    }
    loaded = [_named(load(item, mpp=mpp), work) for item in items]
    entries = [
        (one.item, Entry(one.item.slide, _sized(one), one.item.case, one.item.split))
        for one in loaded
        if one.sheet
    ]
    files = [out / f"{entry.slide}.geojson" for _, entry in entries] if to == "geojson" else [out]
    if len(set(files)) < len(files):
        raise ConfigError(
            f"two slides are called '{_twice(files).stem}' and would write one file; export them "
            "apart"
        )
    own = next((file for file in files if file.resolve() in read), None)
    if own is not None:  # an export need not hold everything
        raise ConfigError(f"{own}: what is to be exported is read from it; choose another --out")
    there = next((file for file in files if file.exists()), None)
    if there is not None and not overwrite:
        raise ConfigError(f"{there} exists; choose another --out, or say --overwrite")
    _write(to, files, entries)
    left_out = [line for one in loaded for line in _left_out(one)]
    for line in (*left_out, *(line for one in loaded for line in _notes(one))):
        print(line)
    records = sum(len(entry.sheet.records) for _, entry in entries)
    print(
        f"{records - sum(1 for one in loaded for r in _faulty(one))} records of {len(entries)} "
        f"slides: {out}"
    )
    return EXIT_FAILED if left_out else EXIT_OK


def _write(to: str, files: Sequence[Path], entries: Sequence[tuple[Item, Entry]]) -> None:
    from quadrat.annotations.exporting import write_coco, write_csv, write_geojson
    from quadrat.annotations.formats.table import to_table, write_parquet

    own = [entry for _, entry in entries]
    if to == "geojson":
        for file, entry in zip(files, own, strict=True):
            write_geojson(file, entry)
    elif to == "coco":
        write_coco(files[0], own, pictures=[item.picture for item, _ in entries])
    elif to == "csv":
        write_csv(files[0], own)
    else:
        write_parquet(files[0], to_table(own))


def _items(inputs: Sequence[Path], pipeline: str | None) -> tuple[Pipeline | None, list[Item]]:
    """The pipeline and the slides; without inputs those of the pipeline's manifest.

    Raises:
        ConfigError: neither inputs nor a pipeline with a manifest, or a file that does not exist.
    """
    from quadrat.annotations.items import items_of
    from quadrat.config.pipeline import load_pipeline, manifest_of

    work = None if pipeline is None else load_pipeline(pipeline)
    if not inputs:
        if work is None or not work.data.manifest:
            raise ConfigError(
                "name a manifest or annotation files, or a --pipeline whose data.manifest is set"
            )
        inputs = [manifest_of(work)]
    missing = next((path for path in inputs if not path.exists()), None)
    if missing is not None:
        raise ConfigError(f"there is no file {missing}")
    return work, items_of(inputs, pipeline=work)


def _scale(pipeline: Pipeline | None, mpp: Scale | None) -> Scale | None:
    """The scale as ``--mpp`` and the pipeline say it.

    Raises:
        ConfigError: the one is in um, the other in px.
    """
    if pipeline is None or mpp is None:
        return PX if pipeline is not None and pipeline.model.unit == PX else mpp
    if (mpp == PX) != (pipeline.model.unit == PX):
        raise ConfigError(
            f"--mpp is {mpp}, but model.mpp of {pipeline.name} is {pipeline.model.mpp}: one is in "
            "um, the other in pixels; leave --mpp out"
        )
    return mpp


def _named(one: Loaded, pipeline: Pipeline | None) -> Loaded:
    from quadrat.annotations.items import named

    if one.sheet is None or pipeline is None:
        return one
    return replace(one, sheet=named(one.sheet, [c.name for c in pipeline.classes]))


def _sized(one: Loaded) -> Any:
    """The sheet with the slide's size, which counts before the one that the file states."""
    assert one.sheet is not None  # the caller leaves the others out
    return one.sheet if one.size is None else replace(one.sheet, size=one.size)


def _faulty(one: Loaded) -> list[Any]:
    return [] if one.sheet is None else [record for record in one.sheet.records if record.fault]


def _left_out(one: Loaded) -> list[str]:
    """A line for whatever of an item cannot be used: the file, or records without a geometry."""
    lines = [
        text for text in one.unreadable if one.sheet is None or not text.startswith("the slide: ")
    ]
    lines += [
        f"{one.item.path}, {r.place}: {r.fault.code}: {r.fault.text}; left out"
        for r in _faulty(one)
    ]
    return lines


def _notes(one: Loaded) -> list[str]:
    """What the reader left out of a file, or understood otherwise than it stands there."""
    return [] if one.sheet is None else [f"note: {one.item.path}: {x}" for x in one.sheet.notes]


def _twice(files: Sequence[Path]) -> Path:
    return next(file for file in files if files.count(file) > 1)


def _aligned(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows with their union of columns, in aligned columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return aligned([names, *([_cell(row.get(name)) for name in names] for row in rows)])


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
