"""Other commands: look at slides, check stores and results, make phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from quadrat.cli.options import MppOrPx
from quadrat.cli.runs import Slide, found
from quadrat.core.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    ConfigError,
    QuadratError,
    StoreError,
)

AsJson = Annotated[bool, Parameter(name="--json")]


def inspect(
    *slides: Slide,
    as_json: AsJson = False,
    mpp: MppOrPx = None,
    scene: str = "",
    pictures: Path | None = None,
) -> int:
    """What a slide file says of itself.

    Format, size, levels, mpp, tissue.

    A file that cannot be read does not stop the others.

    examples:
      quadrat inspect *.svs
      quadrat inspect slide.ndpi --json
      quadrat inspect slides/ --mpp 0.25 --pictures looks

    Args:
        slides: slides, folders of slides, or quoted patterns
        as_json: one JSON object per slide
        mpp: um/px of all given slides, instead of what the files state; px: as a model with
            model.mpp px sees them
        scene: which of several pictures in a file, by name or number
        pictures: folder for a thumbnail and a tissue overlay of each slide
    """
    from quadrat.cli.inspect import describe, describe_text

    if not slides:
        raise ConfigError("no slide was given; name slide files or folders of slides")
    code, taken = EXIT_OK, set[str]()
    for path in map(str, found(slides)):
        try:
            facts = describe(path, mpp=mpp, scene=scene, pictures=pictures, taken=taken)
        except QuadratError as error:
            facts = {"path": path, "error": str(error)}
        taken.update(facts.get("pictures", ()))
        code = EXIT_FAILED if "error" in facts else code
        print(json.dumps(facts) if as_json else describe_text(facts))
    return code


def verify(store: Path, /, *stores: Path) -> int:
    """Check stores for changed, missing and stray files.

    examples:
      quadrat verify out/results/slide/slide.ome.zarr

    exit codes: 0 all sound, 1 a store is damaged or unfinished,
    2 a path is no store

    Args:
        store: a tile or prediction store, an OME-Zarr image
        stores: more of them
    """
    from quadrat.store.seal import verify as problems_of

    code = EXIT_OK
    for path in (store, *stores):
        try:
            problems = problems_of(path)
        except StoreError as error:
            print(error)
            code = EXIT_USAGE
            continue
        for line in problems or [f"{path}: sound"]:
            print(line)
        code = max(code, EXIT_FAILED) if problems else code
    return code


def seams(
    result: Path,
    /,
    *,
    tile: Annotated[float | None, Parameter(metavar="PX")] = None,
    origin: Annotated[tuple[float, float], Parameter(metavar="X Y", show_default=False)] = (
        0.0,
        0.0,
    ),
    mpp: Annotated[float | Literal["px"] | None, Parameter(metavar="UM/PX")] = None,
    as_json: AsJson = False,
) -> int:
    """Whether a result shows where the slide was cut into tiles.

    examples:
      quadrat seams nuclei_out/results/slide
      quadrat seams other_tool.geojson --tile 1024 --origin 0 0 --mpp 0.25

    Args:
        result: a slide's folder under results/, or a GeoJSON file
        tile: side of the tiles in level-0 px (needed for a GeoJSON file)
        origin: corner of a tile in level-0 px (0 0)
        mpp: um per level-0 px, or px where nobody knows it (needed for a GeoJSON file)
        as_json: one JSON object
    """
    from quadrat.core.records import to_json
    from quadrat.evaluation.seam_files import read_seams, seams_text

    report = read_seams(result, tile=tile, origin=origin, mpp=mpp)
    values = to_json(report, unit=report.unit)
    print(json.dumps(values, indent=2) if as_json else seams_text(report))
    return EXIT_OK


def demo(
    *,
    scale: Literal["small", "full"] = "full",
    out: Path = Path("demo"),
    workers: Annotated[int | None, Parameter(name=("--workers", "-j"), metavar="N")] = None,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"))] = False,
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"))] = False,
) -> int:
    """Phantoms, four trainings, one table: planted and found.

    examples:
      quadrat demo --scale small --out demo

    Args:
        scale: small takes about 4 minutes on two cores
        out: folder of the demo
        workers: worker processes; as many as there are CPUs and memory for
        quiet: no progress, only results and errors
        verbose: print what goes into the log as well
    """
    from quadrat.cli.demo import demo
    from quadrat.engine.cluster import default_workers
    from quadrat.engine.progress import Reporter

    if workers is None:
        workers = default_workers(threads=1)
    if workers < 1:
        raise ConfigError(f"--workers is {workers}; it must be at least 1")
    with Reporter(out / "log.jsonl", quiet=quiet, verbose=verbose) as reporter:
        return demo(out, scale=scale, workers=workers, reporter=reporter)


def phantom(
    *,
    out: Path = Path("phantoms"),
    name: str | None = None,
    size: Annotated[
        tuple[int, ...], Parameter(consume_multiple=(1, 2), metavar="PX", show_default=False)
    ] = (2048,),
    seed: int = 0,
    dominant: Literal["stroma", "gland", "tumour"] = "tumour",
    tissue: Annotated[float, Parameter(metavar="SHARE")] = 0.6,
) -> int:
    """Write a synthetic slide with exact truth.

    examples:
      quadrat phantom --out phantoms --size 4096 --seed 7 --dominant gland

    Args:
        out: folder for the slide and its truth
        name: of the slide; without it phantom_SEED
        size: side, or height and width (2048)
        seed: another seed is another slide
        dominant: the region that most of the tissue is
        tissue: share of the slide that is tissue
    """
    from quadrat.phantom import PhantomSpec, write_phantom

    name = f"phantom_{seed}" if name is None else name
    if Path(name).name != name:
        raise ConfigError(f"--name is '{name}'; it must be a file's name, without a folder")
    spec = PhantomSpec(
        name=name,
        height=size[0],
        width=size[-1],
        seed=seed,
        dominant=dominant,
        tissue_fraction=tissue,
    )
    print(write_phantom(out, spec=spec).slide)
    return EXIT_OK
