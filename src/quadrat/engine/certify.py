"""The promise, checked on a user's own slides: some finished slides are done again from nothing, in
another order, by another number of workers and in other work units, and every byte is compared."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from quadrat.config.manifest import SlideRef
from quadrat.config.pipeline import Pipeline
from quadrat.core.errors import ConfigError, QuadratError, SlideError
from quadrat.core.files import sha256_of, write_file
from quadrat.core.records import to_json
from quadrat.core.text import utc_now
from quadrat.core.version import __version__
from quadrat.engine import run as engine_run
from quadrat.engine.drivers import Asked, Driver, read_asked, read_drivers
from quadrat.engine.fingerprint import identified
from quadrat.engine.finished import package_folder
from quadrat.engine.progress import Reporter
from quadrat.engine.timings import Timing, read_timings
from quadrat.engine.unlike import unlike
from quadrat.engine.work import results_folder
from quadrat.models.spec import versions
from quadrat.models.task import ModelSpec
from quadrat.outputs.summary import read_summary

CERTIFICATE = "certificate"
Verdict = Literal["equal", "another machine", "different", "not done"]
_WORST: tuple[Verdict, ...] = ("equal", "another machine", "different", "not done")


@dataclass(frozen=True, slots=True)
class Varied:
    """What was done otherwise: then and now."""

    workers: tuple[int | None, int]
    """Worker processes; None: not known."""
    shards_per_unit: tuple[int, int]
    """Shards that a worker takes at once."""
    slides_in_flight: tuple[int, int]
    """Slides that go through the steps together."""
    order: tuple[str, ...]
    """The slides in the order in which they were given now, which is by chance."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that is not the same."""

    file: str
    """Its path in the slide's results."""
    what: str
    """What of it differs."""


@dataclass(frozen=True, slots=True)
class Certified:
    """One slide."""

    slide: str
    """Its name."""
    verdict: Verdict
    """What came of it."""
    fingerprint: str
    """Of the slide, the model and the settings."""
    files: Mapping[str, str]
    """sha256 of every file of the results in the run's folder."""
    differences: tuple[Difference, ...]
    """Files that are others when the slide is done again."""
    computed_with: tuple[str, str]
    """What the network was computed with, then ("": not known) and now."""
    reason: str = ""
    """Why it was not done again; ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What was checked, and what came of it."""

    verdict: Verdict
    """The worst of all slides."""
    made: str
    """When (UTC)."""
    seed: int
    """Of the choice of slides and of their order."""
    finished: int
    """Slides with results in the folder, of which some were taken."""
    versions: Mapping[str, str]
    """Of the libraries that numbers depend on, now."""
    weights_sha256: tuple[str, ...]
    """Of the model packages."""
    varied: tuple[Varied, ...]
    """What was done otherwise; one for each command that made the slides."""
    slides: tuple[Certified, ...]
    """The slides that were taken."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A finished slide that can be done again."""

    ref: SlideRef
    asked: Asked
    fingerprint: str
    weights: str


def certify(
    out: Path,
    *,
    slides: int = 2,
    seed: int = 0,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> Certificate:
    """Do ``slides`` finished slides of a run's folder again, beside it, and compare every byte.
    OUT/certificate.json and .md say what came of it. ``workers``: now; None: another number than
    then.

    Raises:
        ConfigError: no finished slide of the folder can be done again.
    """
    names = _finished(out)
    chosen = _choose(out, names, slides, seed)
    random.Random(seed + 1).shuffle(chosen)
    timings, drivers = read_timings(out), {driver.id: driver for driver in read_drivers(out)}
    groups: dict[tuple[int, str], list[_Chosen]] = {}
    for one in chosen:  # what one command made is done again by one command
        timing = timings.get(one.ref.name)
        groups.setdefault((id(one.asked), timing.driver if timing else ""), []).append(one)
    found: list[Certified] = []
    varied: list[Varied] = []
    for (_, driver), several in groups.items():
        varied.append(_varied(several, drivers.get(driver), workers))
        with TemporaryDirectory(prefix=f".{out.name}.again-", dir=out.absolute().parent) as name:
            found += _again(out, Path(name), several, drivers.get(driver), varied[-1], reporter)
    certificate = Certificate(
        verdict=max((one.verdict for one in found), key=_WORST.index),
        made=utc_now(),
        seed=seed,
        finished=len(names),
        versions=versions() | {"quadrat": __version__},
        weights_sha256=tuple(sorted({one.weights for one in chosen})),
        varied=tuple(varied),
        slides=tuple(sorted(found, key=lambda one: one.slide)),
    )
    write_file(out / f"{CERTIFICATE}.json", json.dumps(to_json(certificate), indent=1) + "\n")
    write_file(out / f"{CERTIFICATE}.md", as_text(certificate))
    return certificate


def _again(
    out: Path,
    again: Path,
    chosen: Sequence[_Chosen],
    driver: Driver | None,
    varied: Varied,
    reporter: Reporter | None,
) -> list[Certified]:
    """Do slides again in an empty folder, and compare. ``driver``: who made them, if that is
    known."""
    pipeline, refs = _pipeline(chosen[0].asked.pipeline, varied), [one.ref for one in chosen]
    report = engine_run.run(pipeline, refs, again, workers=varied.workers[1], reporter=reporter)
    reasons = {row.slide: row.reason for row in report.rows if row.status != "done"}
    here = read_drivers(again)  # none, if no slide could even be opened
    numerics = driver.numerics if driver else "", here[-1].numerics if here else ""
    before, after = read_timings(out), read_timings(again)

    def machine(timings: Mapping[str, Timing], slide: str) -> str:
        return timings[slide].machine if slide in timings else ""

    found = []
    for one in chosen:
        slide = one.ref.name
        same = machine(before, slide) in ("", machine(after, slide))
        reason = reasons.get(slide, "")
        found.append(_compared(out, again, one, numerics, same=same, reason=reason))
    return found


def _finished(out: Path) -> list[str]:
    return sorted(path.parent.name for path in (out / "results").glob("*/summary.json"))


def _choose(out: Path, names: Sequence[str], number: int, seed: int) -> list[_Chosen]:
    """Slides by chance, of those whose file, model and settings are there as they were.

    Raises:
        ConfigError: there is none.
    """
    if number < 1:
        raise ConfigError(f"--slides is {number}; it must be at least 1")
    order, records = list(names), [one for one in read_asked(out) if one.until == "results"]
    random.Random(seed).shuffle(order)
    found, why = list[_Chosen](), ""
    model_of = cache(lambda at: _model(records[at].pipeline))  # each is loaded once
    for name in order:
        for at, asked in enumerate(records):
            ref = next((ref for ref in asked.slides if ref.name == name), None)
            if ref is None:
                continue
            try:
                found.append(_as_it_was(out, ref, asked, *model_of(at)))
                break
            except QuadratError as error:
                why = str(error)
        if len(found) == number:
            break
    if not found:
        reason = why or "no record under run/asked/ names a slide that is finished"
        raise ConfigError(f"{out}: no finished slide can be done again ({reason})")
    return found


def _model(pipeline: Pipeline) -> tuple[ModelSpec, str]:
    """A pipeline's model, and the hash of its weights."""
    spec, card = engine_run.run_spec(pipeline, package_folder(pipeline))
    return spec, str(card["weights_sha256"])


def _as_it_was(out: Path, ref: SlideRef, asked: Asked, spec: ModelSpec, weights: str) -> _Chosen:
    """A finished slide that would be done the same now.

    Raises:
        SlideError: its file, the model or the settings are others, or its summary is damaged.
    """
    _, now = identified(ref, Path(), spec, asked.pipeline, weights_sha256=weights)
    try:
        then = read_summary(results_folder(out, ref.name)).fingerprint
    except (OSError, ValueError) as error:
        raise SlideError(f"{ref.name}: its summary cannot be read: {error}") from error
    if now.result != then:
        raise SlideError(f"{ref.name}: its file, its model or a setting is another one now")
    return _Chosen(ref, asked, then, weights)


def _varied(chosen: Sequence[_Chosen], driver: Driver | None, workers: int | None) -> Varied:
    """Other values for all that must not be seen in results."""
    pipeline = chosen[0].asked.pipeline
    before = None if driver is None else driver.workers
    now = workers if workers is not None else max(1, before // 2) if before and before > 1 else 2
    unit, flight = pipeline.run.shards_per_unit, pipeline.run.slides_in_flight
    return Varied(
        workers=(before, now),
        shards_per_unit=(unit, 3 if unit == 1 else 1),
        slides_in_flight=(flight, 1 if flight > 1 else 3),
        order=tuple(one.ref.name for one in chosen),
    )


def _pipeline(pipeline: Pipeline, varied: Varied) -> Pipeline:
    section = replace(
        pipeline.run,
        cluster="local",
        shards_per_unit=varied.shards_per_unit[1],
        slides_in_flight=varied.slides_in_flight[1],
        keep=(),
    )
    return replace(pipeline, run=section)


def _compared(
    out: Path, again: Path, one: _Chosen, numerics: tuple[str, str], *, same: bool, reason: str
) -> Certified:
    """Every file of a slide's results, then and now. ``same``: whether the machine computes as the
    one did that made them."""
    before, after = (results_folder(place, one.ref.name) for place in (out, again))
    files = contents(before)
    now = contents(after) if not reason else {}
    differences = tuple(
        Difference(file, unlike(before / file, after / file))
        for file in sorted(files.keys() | now.keys())
        if not reason and files.get(file) != now.get(file)
    )
    verdict: Verdict = "equal"
    if reason:
        verdict = "not done"
    elif differences:
        verdict = "different" if same else "another machine"
    return Certified(one.ref.name, verdict, one.fingerprint, files, differences, numerics, reason)


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path in it."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


SENTENCES: Mapping[Verdict, str] = {
    "equal": "Every byte is equal.",
    "different": "Results differ, on a machine that computes alike. Please report this.",
    "another machine": "Results differ, but this machine computes the network otherwise than the "
    "one that made them (other hardware, device, threads, or version of torch), so the last bits "
    "of its answers are others. Certify on a machine of the same kind.",
    "not done": "A slide could not be done again.",
}


def as_text(certificate: Certificate) -> str:
    """A certificate for people (Markdown)."""
    first = certificate.slides[0]
    lines = [
        f"# Certificate: {certificate.verdict}",
        "",
        SENTENCES[certificate.verdict],
        "",
        f"{len(certificate.slides)} of {certificate.finished} finished slides (chosen by seed "
        f"{certificate.seed}) were done again from nothing on {certificate.made}, by quadrat "
        f"{__version__}, and every file was compared.",
        "",
        "| | then | now |",
        "|---|---|---|",
        f"| computed with | {first.computed_with[0] or 'not known'} | {first.computed_with[1]} |",
    ]
    for one in certificate.varied:
        then = "not known" if one.workers[0] is None else one.workers[0]
        lines += [
            f"| worker processes (0: none) | {then} | {one.workers[1]} |",
            "| shards in a work unit | {} | {} |".format(*one.shards_per_unit),
            "| slides at the same time | {} | {} |".format(*one.slides_in_flight),
            f"| order of slides | as given | {', '.join(one.order)} |",
        ]
    lines += ["", "| slide | verdict | files | sha256 of summary.json |", "|---|---|---|---|"]
    for slide in certificate.slides:
        digest = slide.files.get("summary.json", "")
        lines += [f"| {slide.slide} | {slide.verdict} | {len(slide.files)} | `{digest}` |"]
    lines += [
        f"- {slide.slide}/{one.file}: {one.what}"
        for slide in certificate.slides
        for one in slide.differences
    ]
    lines += [f"- {slide.slide}: {slide.reason}" for slide in certificate.slides if slide.reason]
    lines += ["", "Versions: " + ", ".join(f"{k} {v}" for k, v in certificate.versions.items())]
    return "\n".join(lines) + "\n"
