"""Pipeline files: YAML to typed sections. An unknown key is an error that names the nearest one."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from quadrat.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSection:
    """A class: the name used in annotations and results, and its colour (red, green,
    blue; 0-255).
    """

    name: str
    color: tuple[int, ...] = (228, 26, 28)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection:
    """What is frozen into the model package at training; sizes in px at ``mpp`` um/px.

    ``package``: folder of the package, relative to the pipeline file's folder or to the working
    folder. ``encoder``: see :mod:`quadrat.models.encoders`; ``encoder_weights``: file of a state
    dict to begin with, or "hub" (the library's own download). ``mean`` and ``std`` of RGB in 0-1
    normalise pixels (left out: those that the weights were made with, or else those of H&E).
    ``precision``: of the stored weights, "float32" or "float16" (half the size; metrics are
    measured on it).
    """

    package: str
    mpp: float = 0.5
    core: int = 512
    halo: int = 48
    stride: int = 8
    shard: int = 2048
    encoder: str = "small"
    encoder_weights: str = ""
    dropout: float = 0.0
    precision: str = "float32"
    widths: tuple[int, ...] = (24, 48, 96)
    batch: int = 4
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    license: str = "not stated"
    limits: str = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """Where the truth is: ``manifest`` is a CSV (slide, annotation, mpp, label, case, split,
    annotated, fold).

    ``annotations`` says what is learnt; the format of a file is found from its content
    (docs/annotations.md). "objects": counted things (QuPath detections and cells, with
    ``objects_as`` "annotations" QuPath annotations as well; COCO, boxes); "regions": areas of
    tissue; "points": points, drawn as discs of ``point_diameter_um`` (of a text file without a
    header ``point_layout`` is "x y class" or "y x class"; ``point_first_class``: the number that
    means the first class); "labels": a label image, a value an object; "mask": a grey image, class
    1 above ``mask_threshold``, or with null the class numbers; "none": the column ``label`` alone.

    ``bad_records``: "refuse" stops at a file with bad records; "skip" leaves them out and tells how
    many. ``ignore``: class names to leave out knowingly (``*`` for anything; QuPath's own ignored
    classes, which end in an asterisk, are left out anyway). ``tissue`` is for the training slides
    what slide.tissue is for a run's ("all" for sets of small flat images).
    """

    manifest: str = ""
    annotations: str = "objects"
    objects_as: str = "detections"
    bad_records: str = "refuse"
    ignore: tuple[str, ...] = ()
    point_diameter_um: float = 0.0
    point_layout: str = "x y class"
    point_first_class: int | None = None
    mask_threshold: int | None = 127
    tissue: str = "auto"
    source: str = "not stated"
    license: str = "not stated"


AUGMENTATION_LIMITS = {
    "stain": 0.5,
    "colour": 0.5,
    "blur": 4.0,
    "jpeg": 1.0,
    "noise": 40.0,
    "scale": 1.0,
    "rotate": 45.0,
}
"""The strongest value of each field of :class:`Augmentation`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How strongly samples are varied; 0 is off.

    Moderate: stain 0.1, colour 0.1, blur 1, jpeg 0.3, noise 4, scale 0.15, rotate 10.

    stain: s.d. of the relative amount of each stain (and half of it of each channel's density).
    colour: largest relative change of brightness, contrast and saturation (hue: half of it in rad).
    blur: largest sigma in px; sharpening by as much. jpeg: share of the samples that are compressed
    again. noise: largest s.d. in grey values of 0-255. scale: largest relative zoom in or out.
    rotate: largest turn in degrees, beside flips and quarter turns.

    Raises:
        ConfigError: a value below 0 or beyond ``AUGMENTATION_LIMITS``.
    """

    stain: float = 0.0
    colour: float = 0.0
    blur: float = 0.0
    jpeg: float = 0.0
    noise: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value, limit = getattr(self, f.name), AUGMENTATION_LIMITS[f.name]
            if not 0 <= value <= limit:
                raise ConfigError(
                    f"train.augment.{f.name} is {value:g}; it must lie in 0 (off) to {limit:g}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSection:
    """The training loop. ``patch`` px a side; ``precision`` "fp32" or "bf16"; ``threads`` of torch.

    ``init``: folder of a package to go on from (``quadrat train --init``). ``encoder_lr``: share of
    ``lr`` for the encoder (0: frozen); ``freeze_norm``: its batch statistics stay those it came
    with (both are for an encoder with weights). ``balance``: windows are drawn so that each class
    is as frequent as any other, as far as windows can be chosen. ``validate_every``: steps between
    validations on the slides of split "val" (left out: a tenth of the steps; 0: never).
    ``patience``: validations without a better figure after which the training ends (0: it never
    ends early); the package holds the best weights in any case. ``calibrate``: what the thresholds
    that the file does not set are chosen for on the slides of split "val": "f1" (the task's
    figure), "count" (the least error of counts), or "none". ``processes``: how many train one model
    together, a GPU each (torchrun). ``source``: as run.source.
    """

    steps: int = 600
    batch: int = 8
    patch: int = 256
    lr: float = 3e-3
    encoder_lr: float = 1.0
    freeze_norm: bool = False
    weight_decay: float = 1e-4
    warmup: int = 30
    seed: int = 0
    precision: str = "bf16"
    threads: int = 1
    processes: int = 1
    source: str = "streamed"
    init: str = ""
    augment: Augmentation = field(default_factory=lambda: Augmentation(stain=0.08))
    balance: bool = False
    validate_every: int | None = None
    patience: int = 0
    calibrate: str = "f1"
    checkpoint_every_s: float = 30.0
    cache_mb: int = 1500
    tensorboard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideSection:
    """Reading: ``mpp`` overrides the file's (um/px); ``tissue`` is "auto" or "all" (no mask).

    ``damaged``: what becomes of a slide with a tile that cannot be decoded: "fail", or "mark" (the
    tile is read as white, recorded, and taken off the analysed area).

    The mask of "auto": pieces under ``tissue_min_mm2`` are specks; ``tissue_margin_um`` of glass
    around tissue is taken along; ``tissue_threshold`` is the least optical density of tissue (lower
    for paler stain). ``include``, ``exclude``: class names of a slide's region file, in any case,
    ``*`` for anything.
    """

    mpp: float | None = None
    allow_upsampling: bool = False
    damaged: str = "fail"
    tissue: str = "auto"
    min_tissue: float = 0.0
    tissue_min_mm2: float = 0.02
    tissue_margin_um: float = 0.0
    tissue_threshold: float = 0.06
    include: tuple[str, ...] = ("Include", "ROI", "Region*", "Tissue")
    exclude: tuple[str, ...] = ("Exclude", "Artefact", "Artifact", "Pen", "Fold", "Ignore*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSection:
    """The machine's side; nothing here is visible in ``results/`` but ``threads`` and ``device``.

    ``source``: inference reads "streamed" from the slide, or "stored" from a tile store that is
    filled first (a complete one that was kept is always used). ``keep``: of "tiles", "predictions";
    what is kept under ``run/`` after a slide is done.
    """

    executor: str = "dask"
    source: str = "streamed"
    workers: int = 2
    threads: int = 1
    device: str = "auto"
    shards_per_unit: int = 1
    slides_in_flight: int = 8
    deadline_s: float = 3600.0
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsSection:
    """Which results are written beside the tables. ``image``: the analysed part at full resolution
    as OME-Zarr."""

    image: bool = False
    geojson: bool = True
    overlay: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One pipeline file. ``thresholds`` holds the task's decisions; what is left out has the task's
    default."""

    name: str
    task: str
    classes: tuple[ClassSection, ...]
    model: ModelSection
    description: str = ""
    data: DataSection = field(default_factory=DataSection)
    train: TrainSection = field(default_factory=TrainSection)
    slide: SlideSection = field(default_factory=SlideSection)
    run: RunSection = field(default_factory=RunSection)
    outputs: OutputsSection = field(default_factory=OutputsSection)
    thresholds: dict[str, float] = field(default_factory=dict)
    folder: str = "."


def shipped_pipelines() -> Path:
    """The folder of the ready-made pipelines: in the installed package, or the checkout's
    ``pipelines/``."""
    here = Path(__file__).resolve().parents[1]
    installed = here / "pipelines"
    return installed if installed.is_dir() else here.parents[1] / "pipelines"


def find_pipeline(name: str) -> Path:
    """The file of a pipeline given by path or by the name of a shipped one.

    Raises:
        ConfigError: neither exists.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(f"there is no pipeline file {path}")
    shipped = {p.stem: p for p in sorted(shipped_pipelines().glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ConfigError(
        f"there is no pipeline '{name}' (shipped: {', '.join(shipped)}; or give a .yaml file){hint}"
    )


def manifest_of(pipeline: Pipeline) -> Path:
    """The file that ``data.manifest`` names: beside the pipeline file if it is there, else from the
    working folder."""
    beside = Path(pipeline.folder) / pipeline.data.manifest
    return beside if beside.is_file() else Path(pipeline.data.manifest)


def load_pipeline(name: str, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline file and lay ``section.key=value`` overrides over it.

    Raises:
        ConfigError: missing file, broken YAML, unknown key (the nearest is named), or a value
        of the wrong type.
    """
    path = find_pipeline(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, not {type(content).__name__}")
    for override in overrides:
        _apply(content, override)
    content = {"name": path.stem, "folder": str(path.resolve().parent)} | content
    pipeline: Pipeline = _build(Pipeline, content, where=str(path))
    _check(pipeline, str(path))
    return pipeline


def _apply(content: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign:
        raise ConfigError(f"--set {override}: write it as section.key=value")
    *sections, last = key.strip().split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {override}: '{section}' is not a section")
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {override}: the value is not valid YAML ({' '.join(str(error).split())})"
        ) from error


def _build(kind: Any, content: Mapping[str, Any], *, where: str) -> Any:
    """A section dataclass from a mapping, checked key by key."""
    hints = typing.get_type_hints(kind)
    for key in content:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(hints)})"
            raise ConfigError(f"{where}: unknown key '{key}'{hint}")
    for f in dataclasses.fields(kind):
        needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if needed and f.name not in content:
            raise ConfigError(f"{where}: the key '{f.name}' is missing")
    values = {
        key: _convert(hints[key], value, where=f"{where}: {key}") for key, value in content.items()
    }
    return kind(**values)


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a section of keys, not {value!r}")
        return _build(hint, value, where=where)
    if origin is types.UnionType:
        return None if value is None else _convert(arguments[0], value, where=where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_convert(arguments[0], item, where=where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a section of keys, not {value!r}")
        return {str(k): _convert(arguments[1], v, where=f"{where}.{k}") for k, v in value.items()}
    if hint is float and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            number = float(value)  # YAML reads 1e-3 as text
            if not math.isnan(number):
                return number
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(
        f"{where} is {value!r}; it must be {'a number' if hint is float else hint.__name__}"
    )


CHOICES = {
    "slide.tissue": ("auto", "all"),
    "data.tissue": ("auto", "all"),
    "slide.damaged": ("fail", "mark"),
    "run.executor": ("serial", "dask"),
    "run.source": ("streamed", "stored"),
    "train.precision": ("fp32", "bf16"),
    "train.source": ("streamed", "stored"),
    "train.calibrate": ("f1", "count", "none"),
    "model.precision": ("float32", "float16"),
    "data.point_layout": ("x y class", "y x class"),
    "data.objects_as": ("detections", "annotations"),
    "data.bad_records": ("refuse", "skip"),
    "data.annotations": ("objects", "regions", "points", "labels", "mask", "none"),
}
INF = math.inf
LIMITS = {
    "model.batch": (1, INF),
    "model.mpp": (0.01, 1000),
    "data.point_diameter_um": (0, 10_000),
    "run.workers": (1, INF),
    "run.threads": (1, INF),
    "run.shards_per_unit": (1, INF),
    "run.slides_in_flight": (1, INF),
    "train.steps": (1, INF),
    "train.batch": (1, INF),
    "train.patch": (1, INF),
    "train.threads": (1, INF),
    "train.processes": (1, INF),
    "train.warmup": (0, INF),
    "train.patience": (0, INF),
    "train.seed": (0, 2**63 - 1),
    "train.cache_mb": (0, INF),
    "train.weight_decay": (0, INF),
    "train.encoder_lr": (0, INF),
    "slide.min_tissue": (0, 1),
    "slide.tissue_min_mm2": (0, 1000),
    "slide.tissue_margin_um": (0, 5000),
    "slide.tissue_threshold": (0.01, 1),
}
"""The least and the greatest value of a setting; none may be infinite."""
THRESHOLD_LIMITS = {
    "foreground": (0, 1),
    "seed": (0, 1),
    "score": (0, 1),
    "iou": (0, 1),
    "class_aware": (0, 1),
    "min_area_um2": (0, INF),
    "cap_um": (1, 100_000),
}
"""The same for the thresholds that tasks have; those of other tasks need only be finite."""
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _check(pipeline: Pipeline, where: str) -> None:
    for key, choices in CHOICES.items():
        section, name = key.split(".")
        value = getattr(getattr(pipeline, section), name)
        if value not in choices:
            raise ConfigError(
                f"{where}: {key} is '{value}'; it must be one of {', '.join(choices)}"
            )
    for keep in pipeline.run.keep:
        if keep not in ("tiles", "predictions"):
            raise ConfigError(
                f"{where}: run.keep names '{keep}'; it can hold tiles and predictions"
            )
    _check_slide(pipeline.slide, where)
    names = [c.name for c in pipeline.classes]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"{where}: classes must be one or more, each name once (they are: "
            f"{', '.join(names) or 'none'})"
        )
    for c in pipeline.classes:
        if len(c.color) != 3 or not all(0 <= value <= 255 for value in c.color):
            raise ConfigError(
                f"{where}: the color of class '{c.name}' is {list(c.color)}; it must be three "
                "values, 0 to 255"
            )
    for key, limits in LIMITS.items():
        section, name = key.split(".")
        _check_limits(f"{where}: {key}", getattr(getattr(pipeline, section), name), limits)
    for name, value in pipeline.thresholds.items():
        _check_limits(f"{where}: thresholds.{name}", value, THRESHOLD_LIMITS.get(name, (-INF, INF)))
    if not DEVICE.fullmatch(pipeline.run.device):
        raise ConfigError(
            f"{where}: run.device is '{pipeline.run.device}'; it must be auto, cpu, mps, cuda, or "
            "cuda:N"
        )
    if not 0 <= pipeline.model.dropout < 1:
        raise ConfigError(
            f"{where}: model.dropout is {pipeline.model.dropout:g}; it must lie in 0 (off) to "
            "below 1"
        )
    _check_train(pipeline.train, where)
    if not pipeline.run.deadline_s > 0:
        raise ConfigError(f"{where}: run.deadline_s must be above 0")
    if not pipeline.model.widths or min(pipeline.model.widths) < 1:
        raise ConfigError(
            f"{where}: model.widths is {list(pipeline.model.widths)}; it must be one or more "
            "channels, each at least 1"
        )


def _check_limits(what: str, value: float, limits: tuple[float, float]) -> None:
    """Refuse (ConfigError) a value that is infinite or outside least and most, both of which are
    allowed."""
    least, most = limits
    if not (least <= value <= most and math.isfinite(value)):
        told = (
            f"lie in {least:g} to {most:g}"
            if most < INF
            else f"be at least {least:g}"
            if least > -INF
            else "be finite"
        )
        raise ConfigError(f"{what} is {value:g}; it must {told}")


def _check_train(train: TrainSection, where: str) -> None:
    if not 0 < train.lr < INF:
        raise ConfigError(f"{where}: train.lr is {train.lr:g}; it must be a number above 0")
    if train.validate_every is not None and train.validate_every < 0:
        raise ConfigError(
            f"{where}: train.validate_every is {train.validate_every}; it must be 0 (never) or more"
        )
    if train.batch % train.processes:
        raise ConfigError(
            f"{where}: train.batch is {train.batch}; it must be a multiple of train.processes "
            f"({train.processes})"
        )


def _check_slide(slide: SlideSection, where: str) -> None:
    shared = {name.lower() for name in slide.include} & {name.lower() for name in slide.exclude}
    if shared:
        raise ConfigError(
            f"{where}: slide.include and slide.exclude both name {', '.join(sorted(shared))}; keep "
            "one of them"
        )
