"""Pipeline files: YAML to typed, checked sections.

The sections below are the whole description of a pipeline file: names, types, limits, units and
meaning. :mod:`quadrat.config.reference` makes the JSON Schema, ``docs/pipeline.md`` and the
sentences on wrong values from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic.json_schema import SkipJsonSchema, WithJsonSchema
from typing_extensions import TypedDict

from quadrat.config.yaml_file import Yaml, checked, read_yaml
from quadrat.core.errors import ConfigError
from quadrat.core.limits import MPP_MAX, MPP_MIN, WALLTIME
from quadrat.core.text import did_you_mean
from quadrat.core.unit import MPP_OF_PX, PX, Mpp, Unit

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Byte = Annotated[int, Field(ge=0, le=255)]
Share = Annotated[float, Field(ge=0, le=1)]


def _unit(name: str) -> Any:
    """A value's unit in the schema and the reference."""
    return Field(json_schema_extra={"unit": name})


def model_mpp(value: object) -> Mpp:
    """The value of ``model.mpp``."""
    if value == PX:
        return PX
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"model.mpp is {value!r}; it must be a number, or px")
    low, high = MODEL_MPP
    if not low <= value <= high:
        raise ValueError(f"model.mpp is {value}; it must lie in {low:g} to {high:g}, or be px")
    return float(value)


MODEL_MPP = 0.01, 1000.0
ModelMpp = Annotated[
    Mpp,
    PlainValidator(model_mpp),
    WithJsonSchema({
        "anyOf": [
            {"type": "number", "minimum": MODEL_MPP[0], "maximum": MODEL_MPP[1]},
            {"const": PX},
        ],
        "values": f"{MODEL_MPP[0]:g} to {MODEL_MPP[1]:g}, or `{PX}`",
        "unit": "um/px",
    }),
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ClassSection:
    """A class of objects or regions."""

    name: str
    """The name used in annotations and results."""
    color: Annotated[tuple[Byte, ...], Field(min_length=3, max_length=3)] = (228, 26, 28)
    """Red, green and blue."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ModelSection:
    """What is frozen into the model package at training. Sizes are in px at ``mpp``."""

    package: str
    """Folder of the package, relative to the pipeline file's folder or to the working folder."""
    mpp: ModelMpp = 0.5
    """Scale at which the model sees the slide. ``px``, for pictures without a scale: the model sees
    the pixels of the largest level as they are, what slides and manifests state of a scale is not
    used, and no figure in um is written. Then all keys that end in ``_um``, ``_um2`` and ``_mm2``
    are in pixels, square pixels and megapixels, thresholds among them have no default and are
    stated in the file, and all of a picture is analysed (``tissue: all``)."""
    core: Annotated[int, _unit("px")] = 512
    """Side of the square that a window answers for; a multiple of ``stride``."""
    halo: Annotated[int, _unit("px")] = 48
    """Border that a window sees around its core; a multiple of ``stride``."""
    stride: Annotated[int, _unit("px")] = 8
    """Stride of the network: 2 to the power of the number of ``widths``, which training checks."""
    shard: Annotated[int, _unit("px")] = 2048
    """Side of a storage unit; a multiple of ``core``."""
    encoder: str = "small"
    """``small``, ``efficientnet_lite0``, or another network of timm (``resnet18``)."""
    encoder_weights: str = ""
    """File of a state dict to begin with, or ``hub`` for timm's own download."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the features that is dropped in training; 0 is off."""
    precision: Literal["float32", "float16"] = "float32"
    """Of the stored weights. float16 takes half the disk; all metrics are measured on it."""
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (24, 48, 96)
    """Channels of the network's levels, the finest level first."""
    inference: Literal["fp32", "bf16"] | None = None
    """Precision of inference. ``bf16``: faster where the processor (AVX512-BF16, AMX) or the GPU
    computes in it, and fp32 where it does not, which is said. Left out: as the package says, and
    fp32 in training."""
    mean: tuple[float, ...] = ()
    """Mean of red, green and blue in 0 to 1, by which pixels are normalised. Left out: that of the
    encoder's weights, or else that of H&E."""
    std: tuple[float, ...] = ()
    """Standard deviation of red, green and blue, as ``mean``."""
    license: str = "not stated"
    """Licence of the weights, for the package's card."""
    limits: str = "not stated"
    """What the model must not be used for, for the package's card."""

    @property
    def unit(self) -> Unit:
        """The unit of lengths."""
        return "px" if self.mpp == PX else "um"

    @property
    def grid_mpp(self) -> float:
        """um per grid px, or the number that stands for it in pixel work."""
        return MPP_OF_PX if self.mpp == PX else self.mpp


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class MaskColour:
    """What a colour of a mask means."""

    name: str
    """One of the classes, or ``none`` for what is of no class."""
    color: Annotated[tuple[Byte, ...], Field(min_length=3, max_length=3)]
    """Red, green and blue; the grey value v is [v, v, v]."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class DataSection:
    """Where the truth is and how it is read. The format of an annotation file is found from its
    content (docs/annotations.md)."""

    manifest: str = ""
    """CSV with the columns slide, annotation, mpp, label, case, split, annotated, fold, scene,
    relative to the pipeline file's folder or to the working folder."""
    annotations: Literal["objects", "regions", "points", "labels", "mask", "none"] = "objects"
    """What is learnt. ``objects``: things that are counted (QuPath detections and cells, COCO,
    boxes). ``regions``: areas of tissue. ``points``: points, drawn as discs. ``labels``: a label
    image with one value per object. ``mask``: a grey image. ``none``: the manifest's column
    ``label`` alone."""
    objects_as: Literal["detections", "annotations"] = "detections"
    """``annotations``: QuPath annotations count as objects too."""
    bad_records: Literal["refuse", "skip"] = "refuse"
    """``refuse``: stop at a file with bad records. ``skip``: leave them out and report how many."""
    ignore: tuple[str, ...] = ()
    """Class names to leave out; ``*`` stands for any text. QuPath's ignored classes, which end in
    an asterisk, are left out anyway."""
    point_diameter_um: Annotated[float, Field(ge=0, le=10_000), _unit("um")] = 0.0
    """Diameter of the disc that is drawn for a point."""
    point_layout: Literal["x y class", "y x class"] = "x y class"
    """Columns of a text file of points that has no header."""
    point_first_class: int | None = None
    """The number that means the first class in such a file."""
    drawn_on: Literal["auto", "shown", "stored"] = "auto"
    """Of flat pictures with an EXIF orientation: whether annotations were drawn on what viewers
    show or on the pixels as they are stored. ``auto``: the size that their file states tells it,
    and where it cannot they are refused."""
    origin: Literal["auto", "slide", "scanned"] = "auto"
    """Of slides of which only a part was scanned (MIRAX): whether coordinates count from the corner
    of the slide or of that part, as in QuPath. ``auto``: their place tells it, and where it cannot
    they are refused."""
    mask_threshold: int | None = None
    """Values of a mask above it are the first class. null: values up to that of the last class are
    class numbers; if there is one class, it is what is white of black and white."""
    mask_colours: tuple[MaskColour, ...] = ()
    """Which class the colours of a mask are; needed for red, green and blue, and for other values
    than numbers of classes. Black is no class unless it is listed."""
    mpp: Annotated[float, Field(ge=MPP_MIN, le=MPP_MAX), _unit("um/px")] | None = None
    """Scale of the slides with an empty column mpp in the manifest, instead of what the files
    state. It is for training and evaluation; runs have ``slide.mpp``."""
    tissue: Literal["auto", "all"] = "auto"
    """As ``slide.tissue``, for the training slides (``all`` for sets of small flat images)."""
    source: str = "not stated"
    """Where the data is from, for the package's card."""
    license: str = "not stated"
    """Licence of the data, for the package's card."""

    def __post_init__(self) -> None:
        colours = [one.color for one in self.mask_colours]
        twice = next((color for color in colours if colours.count(color) > 1), None)
        if twice is not None:
            raise ValueError(f"data.mask_colours names the colour {list(twice)} twice; keep one")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Augmentation:
    """How strongly samples are varied; 0 is off. Flips and quarter turns are always on. Moderate
    values: stain 0.1, colour 0.1, blur 1, jpeg 0.3, noise 4, scale 0.15, rotate 10."""

    stain: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Standard deviation of the relative amount of each stain (and half of it of each channel's
    density)."""
    colour: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Largest relative change of brightness, contrast and saturation (hue: half of it, in rad)."""
    blur: Annotated[float, Field(ge=0, le=4), _unit("px")] = 0.0
    """Largest sigma of a blur; sharpening is as strong."""
    jpeg: Share = 0.0
    """Share of the samples that are compressed again."""
    noise: Annotated[float, Field(ge=0, le=40), _unit("grey values")] = 0.0
    """Largest standard deviation of noise, of 255 grey values."""
    scale: Share = 0.0
    """Largest relative zoom in or out."""
    rotate: Annotated[float, Field(ge=0, le=45), _unit("degrees")] = 0.0
    """Largest turn."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TrainSection:
    """The training (docs/training.md)."""

    steps: Count = 600
    """Steps of the optimiser."""
    batch: Count = 8
    """Samples per step; a multiple of ``processes``."""
    patch: Annotated[Count, _unit("px")] = 256
    """Side of a sample."""
    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Learning rate of AdamW: linear warm-up, then half a cosine to zero."""
    encoder_lr: Annotated[float, Field(ge=0)] = 1.0
    """Share of ``lr`` for an encoder with weights (try 0.1 to 0.3); 0: the encoder is frozen."""
    freeze_norm: bool = False
    """Keep the batch statistics that an encoder with weights came with (then try true)."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay of AdamW."""
    warmup: Annotated[NotNegative, _unit("steps")] = 30
    """Length of the warm-up."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of weights, samples and folds."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Precision of the computation."""
    threads: Count = 1
    """Threads of torch."""
    processes: Count = 1
    """Processes that train one model together, one GPU each (torchrun)."""
    source: Literal["streamed", "stored"] = "streamed"
    """As ``run.source``."""
    init: str = ""
    """Folder of a package to go on from (``quadrat train --init``). With other classes its head is
    begun anew, which is said before the training."""
    augment: Augmentation = field(default_factory=lambda: Augmentation(stain=0.08))
    """How strongly samples are varied; left out: stain 0.08 alone."""
    balance: bool = False
    """Draw windows so that all classes are equally frequent, as far as windows can be chosen."""
    validate_every: Annotated[NotNegative, _unit("steps")] | None = None
    """Steps between validations on the slides of split ``val``; null: a tenth of ``steps``; 0:
    none, and the last weights are kept."""
    patience: Annotated[NotNegative, _unit("validations")] = 0
    """Validations without a better figure before the training ends; 0: it never ends early. The
    package holds the best weights in any case."""
    calibrate: Literal["f1", "count", "none"] = "f1"
    """What the thresholds that the file does not set are chosen for on the slides of split ``val``:
    ``f1``: the task's main figure; ``count``: the least count error; ``none``: they are not."""
    checkpoint_every_s: Annotated[float, _unit("s")] = 30.0
    """Least time between checkpoints."""
    cache_mb: Annotated[NotNegative, _unit("MiB")] = 1500
    """Memory for windows that were read."""
    tensorboard: bool = False
    """Write events under ``PACKAGE.training/checkpoints/tensorboard`` (needs ``pip install
    'quadrat[tensorboard]'``)."""

    def __post_init__(self) -> None:
        if self.batch % self.processes:
            raise ValueError(
                f"train.batch is {self.batch}; it must be a multiple of train.processes "
                f"({self.processes})"
            )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SlideSection:
    """How slides are read, and which part of them is analysed (docs/tissue.md)."""

    mpp: Annotated[float, Field(gt=0), _unit("um/px")] | None = None
    """Scale of the slides, instead of what the files state."""
    allow_upsampling: bool = False
    """Analyse slides that are coarser than the model."""
    damaged: Literal["fail", "mark"] = "fail"
    """A slide with a tile that cannot be decoded: ``fail``, or ``mark``: the tile is read as white,
    recorded, and taken off the analysed area."""
    tissue: Literal["auto", "all"] = "auto"
    """``auto``: analyse where a mask shows tissue; ``all``: no mask. Where ``model.mpp`` is px,
    ``all`` is the default and the only choice."""
    regions_origin: Literal["auto", "slide", "scanned"] = "auto"
    """From which corner the coordinates of the regions count; see ``data.origin``."""
    min_tissue: Share = 0.0
    """Windows with less tissue than this share of their core are left out."""
    tissue_min_mm2: Annotated[float, Field(ge=0, le=1000), _unit("mm2")] = 0.02
    """Smaller pieces of the mask are specks and are left out."""
    tissue_fill_um: Annotated[float, Field(ge=0, le=1000), _unit("um")] = 64.0
    """Narrower gaps in the tissue count as tissue; 0: none is filled."""
    tissue_hole_mm2: Annotated[float, Field(ge=0, le=1000), _unit("mm2")] = 0.05
    """Smaller holes in the tissue count as tissue; 0: none is filled."""
    tissue_margin_um: Annotated[float, Field(ge=0, le=5000), _unit("um")] = 0.0
    """Glass around the tissue that is analysed too."""
    tissue_threshold: Annotated[float, Field(ge=0.01, le=1)] = 0.06
    """Least optical density of tissue; lower it for pale stains."""
    include: tuple[str, ...] = ("Include", "ROI", "Region*", "Tissue")
    """Classes of a slide's region file that are analysed, in upper or lower case; ``*`` stands for
    any text."""
    exclude: tuple[str, ...] = ("Exclude", "Artefact", "Artifact", "Pen", "Fold", "Ignore*")
    """Classes of a slide's region file that are left out."""

    def __post_init__(self) -> None:
        shared = {name.lower() for name in self.include} & {name.lower() for name in self.exclude}
        if shared:
            raise ValueError(
                f"slide.include and slide.exclude both name {', '.join(sorted(shared))}; keep one "
                "of them"
            )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class RunSection:
    """The machine's side. Nothing here can be seen in ``results/``, except ``threads``, ``device``
    and ``batch``."""

    cluster: Annotated[
        str,
        Field(
            pattern=r"^(local|serial|srun|slurm|(tls|tcp)://\S+|.+\.json)$",
            json_schema_extra={
                "values": "local, serial, srun, slurm, tls://HOST:PORT, tcp://HOST:PORT, or a "
                "scheduler file (FILE.json)"
            },
        ),
    ] = "local"
    """Where jobs run (also ``--cluster``, docs/hpc.md). ``local``: worker processes on this
    machine; ``serial``: all in one process; ``srun``: workers on all nodes of the allocation that
    the command runs in; ``slurm``: worker jobs that it submits (section ``slurm``); an address or a
    scheduler file: a dask cluster that is there already."""
    insecure_cluster: bool = False
    """Whether a cluster without TLS may be used (also ``--insecure-cluster``): who reaches it over
    the network can run code as you."""
    interface: str = ""
    """Network interface over which nodes reach each other, e.g. ``ib0`` (``srun``, ``slurm``); left
    out: the one that the node's name stands for, and loopback in an allocation of one node."""
    source: Literal["streamed", "stored"] = "streamed"
    """Inference reads from the slide (``streamed``), or from a tile store that is filled first
    (``stored``). A complete store that was kept is always used."""
    workers: Count | None = None
    """Worker processes of a command (also ``-j``); left out: as many as the job, or the machine,
    has CPUs and memory for, and none, so that all is done in one process, for slides of 8 Mpx in
    all or less, which are done before workers were ready. ``srun``: of each node; ``slurm``: worker
    jobs (1). In Python, ``run(..., workers=N)``."""
    threads: Count = 1
    """Threads of torch per worker; of one with a GPU, threads that read windows for it."""
    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
            json_schema_extra={"values": "auto, cpu, mps, cuda, or cuda:N"},
        ),
    ] = "auto"
    """Where the network runs; ``auto``: a GPU if there is one (also ``--device``)."""
    stage_gb: Annotated[float, Field(ge=0), _unit("GB")] = 0.0
    """How much of the slides may be copied to the temporary folder of each machine (``$TMPDIR``)
    while workers there read them; 0: none. For file systems that are slow to read in many small
    pieces."""
    batch: Count | None = None
    """Windows that a GPU infers together; left out: so many that they have about 4 Mpx. On a CPU
    each is inferred alone."""
    shards_per_unit: Count = 1
    """Shards that a worker takes at once."""
    slides_in_flight: Count = 8
    """Slides that go through the stages together."""
    deadline_s: Annotated[float, Field(gt=0), _unit("s")] = 3600.0
    """A job that runs longer is ended, and its slide fails."""
    keep: tuple[Literal["tiles", "predictions"], ...] = ()
    """What is kept under ``run/`` after a slide is done, until the folder is deleted."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class SlurmSection:
    """What a worker job asks SLURM for (``run.cluster: slurm``). Each has as many workers as its
    CPUs and memory allow."""

    partition: str = ""
    """Partition; left out: the site's default."""
    account: str = ""
    """Account; left out: your default."""
    walltime: Annotated[
        str,
        Field(
            pattern=f"^{WALLTIME}$",
            json_schema_extra={"values": "a time as HH:MM:SS or D-HH:MM:SS"},
        ),
    ] = "04:00:00"
    """How long a worker job may run. Its workers leave a little earlier, and another job takes its
    place."""
    cpus: Count = 4
    """CPUs of a worker job."""
    memory_gb: Annotated[float, Field(gt=0), _unit("GB")] = 16.0
    """Memory of a worker job."""
    gpus: NotNegative = 0
    """GPUs of a worker job."""
    directives: tuple[str, ...] = ()
    """Further lines, each what comes after ``#SBATCH``."""
    prologue: tuple[str, ...] = ()
    """Shell commands before the workers start, e.g. ``module load cuda``."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class OutputsSection:
    """Results that are written besides the tables (docs/artifacts.md)."""

    image: bool = False
    """The analysed part at full resolution as OME-Zarr."""
    geojson: bool = True
    """Objects or regions for QuPath."""
    overlay: bool = True
    """Pictures to look at."""


if TYPE_CHECKING:
    Thresholds = dict[str, float]
else:  # a dictionary at run time too, with these keys and any other that holds a number

    class Thresholds(TypedDict, total=False, extra_items=float):
        """The task's decisions. What is left out has the task's default, or what training chose on
        the slides of split ``val``."""

        __pydantic_config__ = ConfigDict(
            strict=True, allow_inf_nan=False, use_attribute_docstrings=True
        )
        foreground: Share
        """instance: least foreground of an object's pixels (0.5)."""
        seed: Share
        """instance: least inner distance of an object's seed (0.5)."""
        score: Share
        """detection (0.3), instance_masks (0.5): least confidence of an object."""
        iou: Share
        """detection, instance_masks: of two boxes that overlap by more, the better one stays
        (0.4)."""
        class_aware: Share
        """detection, instance_masks: 1: only boxes of one class exclude each other (0)."""
        by_mask: Share
        """instance_masks: 1: of two objects that overlap, ``iou`` is that of their masks, not of
        their boxes (0)."""
        min_area_um2: Annotated[float, Field(ge=0), _unit("um2")]
        """instance (8), instance_masks (8), semantic (400): smaller objects or regions are left
        out. Needed where ``model.mpp`` is px."""
        cap_um: Annotated[float, Field(ge=1, le=100_000), _unit("um")]
        """instance: an object that is larger is counted once, and its shape is not certain
        (1000). Needed where ``model.mpp`` is px."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Pipeline:
    """A file needs a task, classes and a model; everything else has a default."""

    name: str
    """Name of the pipeline (left out: the file's name without its suffix)."""
    task: str
    """``semantic``, ``classification``, ``detection``, ``instance``, or ``instance_masks``
    (docs/choosing.md)."""
    classes: Annotated[tuple[ClassSection, ...], Field(min_length=1)]
    """The classes, each name once."""
    model: ModelSection
    """What is frozen into the model package."""
    description: str = ""
    """One line for ``quadrat pipelines``."""
    data: DataSection = field(default_factory=DataSection)
    """The training data."""
    train: TrainSection = field(default_factory=TrainSection)
    """The training."""
    slide: SlideSection = field(default_factory=SlideSection)
    """How slides are read."""
    run: RunSection = field(default_factory=RunSection)
    """The machine's side."""
    slurm: SlurmSection = field(default_factory=SlurmSection)
    """What a worker job asks SLURM for."""
    outputs: OutputsSection = field(default_factory=OutputsSection)
    """Which results are written."""
    thresholds: Thresholds = field(default_factory=dict)
    """The task's decisions."""
    folder: SkipJsonSchema[str] = "."
    """Folder of the pipeline file; set when it is loaded."""

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        if len(set(names)) < len(names):
            raise ValueError(f"classes must have each name once (they are: {', '.join(names)})")
        unknown = [c.name for c in self.data.mask_colours if c.name not in (*names, "none")]
        if unknown:
            raise ValueError(
                f"data.mask_colours names '{unknown[0]}', which is none of the classes "
                f"{', '.join(names)}, nor 'none'{did_you_mean(unknown[0], names)}"
            )
        if self.model.unit == PX:
            self._check_px()

    def _check_px(self) -> None:
        """Refuse what is of um, or finds tissue by it, where the model works in pixels."""
        for key, value in (("data.mpp", self.data.mpp), ("slide.mpp", self.slide.mpp)):
            if value is not None:
                raise ValueError(
                    f"{key} is {value:g}, but model.mpp is px: in pixels no scale is used; leave "
                    f"{key} out, or give model.mpp in um/px"
                )
        for key, tissue in (("slide", self.slide.tissue), ("data", self.data.tissue)):
            if tissue != "all":
                raise ValueError(
                    f"{key}.tissue is {tissue}, but model.mpp is px: tissue is found by sizes in "
                    f"um; say {key}.tissue: all, and draw regions where a part is to be left out"
                )


def shipped_pipelines() -> Path:
    """The folder of the ready-made pipelines: in the installed package, or the checkout's
    ``pipelines/``."""
    here = Path(__file__).resolve().parents[1]
    installed = here / "pipelines"
    return installed if installed.is_dir() else here.parents[1] / "pipelines"


def find_pipeline(name: str) -> Path:
    """The file of a pipeline given by path, by the folder of an imported model, or by the name of
    a shipped one.

    Raises:
        ConfigError: neither exists.
    """
    path = Path(name)
    if (path / "pipeline.yaml").is_file():  # the package of an imported model
        return path / "pipeline.yaml"
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(f"there is no pipeline file {path}")
    shipped = {p.stem: p for p in sorted(shipped_pipelines().glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    raise ConfigError(
        f"there is no pipeline '{name}' (shipped: {', '.join(shipped)}; or give a .yaml file)"
        f"{did_you_mean(name, shipped)}"
    )


def manifest_of(pipeline: Pipeline) -> Path:
    """The file that ``data.manifest`` names, looked for next to the pipeline file, then in the
    working folder."""
    near = Path(pipeline.folder) / pipeline.data.manifest
    return near if near.is_file() else Path(pipeline.data.manifest)


def pipeline_schema() -> dict[str, Any]:
    """The JSON Schema of pipeline files (draft 2020-12): limits, defaults, units, descriptions."""
    schema = TypeAdapter(Pipeline).json_schema()
    schema["required"].remove("name")  # the file's name, if it is left out
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def load_pipeline(name: str, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline file and lay ``section.key=value`` overrides over it.

    Raises:
        ConfigError: no such file, broken YAML, or wrong keys and values. All of them are listed,
        each with its path and limits, and for an unknown key the nearest known one.
    """
    path = find_pipeline(name)
    content = read_yaml(path)
    for override in overrides:
        _apply(content, override)
    _analyse_all_in_px(content)
    content = {"name": path.stem, "folder": str(path.resolve().parent)} | content
    return checked(content, TypeAdapter(Pipeline), pipeline_schema, where=str(path))


def _analyse_all_in_px(content: dict[str, Any]) -> None:
    """The default of ``tissue`` where the model works in pixels."""
    model = content.get("model")
    if isinstance(model, dict) and model.get("mpp") == PX:
        for name in ("slide", "data"):
            section = content.setdefault(name, {})
            if isinstance(section, dict):
                section.setdefault("tissue", "all")


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
        place[last] = yaml.load(text, Loader=Yaml)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {override}: the value is not valid YAML ({' '.join(str(error).split())})"
        ) from error
