"""The command line: parse, call one stage, print. Nothing heavy is imported before a command needs
it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from quadrat import __version__
from quadrat.core.errors import ConfigError, QuadratError, StoreError

if TYPE_CHECKING:
    from quadrat.config.manifest import SlideRef
    from quadrat.config.pipeline import Pipeline
    from quadrat.engine.report import RunReport

EXAMPLES = """examples:
  quadrat inspect slide.svs                          what the file says: size, levels, mpp, tissue
  quadrat train nuclei                               train the model package of a pipeline
  quadrat run nuclei slide.svs --out nuclei_out      slide -> tissue -> tiles -> model -> stitched counts
  quadrat run my.yaml --manifest slides.csv          a batch; run it again to go on after an interruption
  quadrat run nuclei slide.svs --mpp 0.5             a slide without mpp
  quadrat stitch nuclei slide.svs --set thresholds.seed=0.6 --overwrite   other thresholds on predictions that
                                                     were kept (run with --set 'run.keep=["tiles","predictions"]')
  quadrat demo --scale small                         phantoms, four trainings, one table

exit codes: 0 all done, 1 some slides failed, 2 wrong usage (nothing ran), 74 output or disk, 75 interrupted (run again)
quadrat is for research use only, not for diagnosis."""  # noqa: E501


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="quadrat",
        description="Train and run image-analysis models on whole slides; one trustworthy result a "
        "slide.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"quadrat {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    inspect = commands.add_parser(
        "inspect", help="what a slide file says of itself", formatter_class=raw,
        epilog="examples:\n  quadrat inspect *.svs\n  quadrat inspect slide.ndpi --json\n"
        "  quadrat inspect *.svs --mpp 0.25 --pictures looks",
    )  # fmt: skip
    inspect.add_argument("slides", nargs="+", metavar="SLIDE")
    inspect.add_argument("--json", action="store_true", help="one JSON object a slide")
    inspect.add_argument(
        "--mpp", type=float, help="um/px of all given slides, instead of what the files state"
    )
    inspect.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="write a thumbnail and a tissue overlay of each slide",
    )

    _add_init(commands)

    verify = commands.add_parser(
        "verify",
        help="check stores for changed, missing, cut-off and stray files",
        formatter_class=raw,
        epilog="examples:\n  quadrat verify out/results/slide/slide.ome.zarr\n\n"
        "exit codes: 0 all sound, 1 a store is damaged or unfinished, 2 a path is no store",
    )
    verify.add_argument(
        "stores",
        nargs="+",
        type=Path,
        metavar="STORE",
        help="a tile or prediction store, an OME-Zarr image",
    )

    for name, text in (
        ("tile", "read the tissue of slides into zarr tile stores (kept under OUT/run/work)"),
        ("predict", "tile and infer; predictions are kept under OUT/run/work"),
        ("stitch", "merge kept predictions into results (other thresholds need no inference)"),
        ("run", "from slides to results: tile, predict, stitch"),
    ):
        command = commands.add_parser(
            name, help=text, description=text, formatter_class=raw,
            epilog=f"examples:\n  quadrat {name} nuclei slide.svs --out out\n"
            f"  quadrat {name} my.yaml --manifest slides.csv --set run.workers=4",
        )  # fmt: skip
        command.add_argument(
            "pipeline", metavar="PIPELINE", help="a shipped pipeline's name, or a YAML file"
        )
        command.add_argument("slides", nargs="*", metavar="SLIDE")
        command.add_argument(
            "--manifest", type=Path, help="CSV with the columns slide, mpp, label, ..."
        )
        command.add_argument(
            "--out", type=Path, default=Path("quadrat_out"), help="folder of the run (%(default)s)"
        )
        command.add_argument(
            "--mpp", type=float, help="um/px of all given slides, instead of what the files state"
        )
        command.add_argument(
            "--regions", type=Path, metavar="GEOJSON",
            help="regions to include or exclude on the one given slide (QuPath; for a batch: "
                 "manifest column 'regions')",
        )  # fmt: skip
        command.add_argument(
            "--overwrite", action="store_true", help="replace results of other settings"
        )
        _add_set(command)

    train = commands.add_parser(
        "train", help="train the model package of a pipeline", formatter_class=raw,
        epilog="examples:\n  quadrat train nuclei\n  quadrat train my.yaml --set train.steps=2000 "
               "--set train.threads=2\n"
        "  quadrat train my.yaml --init packages/nuclei --set train.lr=1e-3\n"
        "  quadrat train my.yaml --folds 5 --set run.workers=2",
    )  # fmt: skip
    train.add_argument("pipelines", nargs="+", metavar="PIPELINE")
    train.add_argument(
        "--overwrite", action="store_true", help="train again although the package exists"
    )
    train.add_argument(
        "--init", type=Path, metavar="PACKAGE", help="go on from the weights of this package"
    )
    train.add_argument(
        "--folds", type=int, metavar="K", nargs="?", const=0,
        help="cross-validate: K trainings side by side (without K: as the manifest's column 'fold' "
             "says), each leaving out "
        "other cases; packages PACKAGE.fold0, .fold1, ...",
    )  # fmt: skip
    _add_set(train)

    evaluate = commands.add_parser(
        "evaluate",
        help="how well a package does on annotated slides it has not seen",
        formatter_class=raw,
        epilog="examples:\n  quadrat evaluate my.yaml --manifest slides.csv --out evaluated\n"
        "  quadrat evaluate my.yaml --split val --json\n  quadrat evaluate my.yaml --folds --out "
        "evaluated\n"
        "  quadrat evaluate my.yaml --results run1/results run2/results",
    )
    evaluate.add_argument(
        "pipeline", metavar="PIPELINE", help="a shipped pipeline's name, or a YAML file"
    )
    evaluate.add_argument(
        "--manifest",
        type=Path,
        help="CSV of annotated slides (default: the pipeline's data.manifest)",
    )
    evaluate.add_argument(
        "--split",
        default="test",
        help='slides of this split: test, val, train, or "all" (%(default)s)',
    )
    evaluate.add_argument(
        "--folds", type=int, metavar="K", nargs="?", const=0,
        help="the packages of a cross-validation, each on the cases it has not seen, pooled (as of "
             "'quadrat train --folds')",
    )  # fmt: skip
    evaluate.add_argument(
        "--out",
        type=Path,
        default=Path("quadrat_evaluation"),
        help="folder of the evaluation (%(default)s)",
    )
    evaluate.add_argument(
        "--results",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="finished results; nothing is run",
    )
    evaluate.add_argument(
        "--distance-um",
        type=float,
        default=6.0,
        metavar="UM",
        help="reach of a matched point (%(default)s)",
    )
    evaluate.add_argument(
        "--allow-seen",
        action="store_true",
        help="evaluate although the model may have seen these cases",
    )
    evaluate.add_argument(
        "--no-ap", action="store_true", help="do not run a second time for average precision"
    )
    evaluate.add_argument(
        "--pictures", action="store_true", help="write overlays and GeoJSON of each slide as well"
    )
    evaluate.add_argument(
        "--overwrite", action="store_true", help="replace results of other settings"
    )
    evaluate.add_argument(
        "--json", action="store_true", help="one JSON object, the content of metrics.json"
    )
    _add_set(evaluate)

    seams = commands.add_parser(
        "seams",
        help="whether a result shows where the slide was cut into tiles",
        formatter_class=raw,
        epilog="examples:\n  quadrat seams nuclei_out/results/slide\n"
        "  quadrat seams other_tool.geojson --tile 1024 --origin 0 0 --mpp 0.25",
    )
    seams.add_argument(
        "result",
        metavar="RESULT",
        type=Path,
        help="a slide's folder under results/, or a GeoJSON file",
    )
    seams.add_argument(
        "--tile",
        type=float,
        metavar="PX",
        help="side of the tiles in level-0 px (needed for a GeoJSON file)",
    )
    seams.add_argument(
        "--origin",
        type=float,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("X", "Y"),
        help="a tile's corner, level-0 px",
    )
    seams.add_argument("--mpp", type=float, help="um per level-0 px (needed for a GeoJSON file)")
    seams.add_argument("--json", action="store_true", help="one JSON object")

    _add_annotations(commands)

    demo = commands.add_parser(
        "demo",
        help="phantoms with exact truth, four trainings, one table of planted and found",
        formatter_class=raw,
        epilog="examples:\n  quadrat demo --scale small --out demo",
    )
    demo.add_argument(
        "--scale",
        choices=("small", "full"),
        default="full",
        help="small: about 4 minutes on two cores",
    )
    demo.add_argument("--out", type=Path, default=Path("demo"))
    demo.add_argument("--workers", type=int, default=2)

    phantom = commands.add_parser(
        "phantom",
        help="write synthetic slides with exact truth (for developers)",
        formatter_class=raw,
        epilog="examples:\n  quadrat phantom --out phantoms --size 4096 --seed 7 --dominant gland",
    )
    phantom.add_argument("--out", type=Path, default=Path("phantoms"))
    phantom.add_argument("--name", help="of the slide (default: phantom_SEED)")
    phantom.add_argument(
        "--size",
        type=int,
        nargs="+",
        default=[2048],
        metavar="PX",
        help="side, or height and width",
    )
    phantom.add_argument("--seed", type=int, default=0)
    phantom.add_argument("--dominant", choices=("stroma", "gland", "tumour"), default="tumour")
    phantom.add_argument(
        "--tissue",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="share of the slide (%(default)s)",
    )
    return parser


def _add_annotations(commands: Any) -> None:
    """``quadrat annotations`` with its three commands."""
    raw = argparse.RawDescriptionHelpFormatter
    group = commands.add_parser(
        "annotations",
        help="check annotation files, tell what is in them, export them",
        formatter_class=raw,
        epilog="examples:\n  quadrat annotations check slides.csv --pipeline my.yaml\n"
        "  quadrat annotations stats *.geojson --mpp 0.25\n  quadrat annotations export slides.csv "
        "--to coco --out all.json",
    )
    kinds = group.add_subparsers(dest="annotations_command", metavar="COMMAND", required=True)
    for name, text in (
        ("check", "name every bad record with file and place; nothing is repaired"),
        ("stats", "counts, areas and diameters of every class"),
        ("export", "write all records in another format"),
    ):
        command = kinds.add_parser(
            name, help=text, description=text, formatter_class=raw,
            epilog="exit codes: 0 all can be used, 1 something is bad or cannot be read, 2 wrong "
                   "usage",
        )  # fmt: skip
        command.add_argument("inputs", nargs="*", type=Path, metavar="MANIFEST_OR_FILE")
        command.add_argument(
            "--pipeline",
            metavar="PIPELINE",
            help="whose classes and data section count (and its manifest)",
        )
        command.add_argument("--mpp", type=float, help="um per level-0 px where no slide states it")
        if name != "export":
            command.add_argument("--json", action="store_true", help="one JSON object")
        if name == "stats":
            command.add_argument(
                "--by",
                choices=("all", "split", "case", "slide"),
                default="split",
                help="rows (%(default)s)",
            )
        if name == "export":
            command.add_argument(
                "--to", choices=("geojson", "coco", "csv", "parquet"), required=True
            )
            command.add_argument(
                "--out",
                type=Path,
                required=True,
                help="a file; for geojson a folder, a file a slide",
            )
            command.add_argument(
                "--overwrite", action="store_true", help="replace files that exist"
            )


def _add_init(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = commands.add_parser(
        "init", help="a manifest and a filled pipeline from folders of slides and annotations",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  quadrat init detection --slides slides --annotations drawn --out "
               "mine\n"
        "  quadrat init instance --slides images --annotations coco.json --out mine\n"
        "  quadrat init classification --slides folder_with_a_folder_a_class --out mine\n"
        "  quadrat init detection --slides slides --annotations drawn --out mine --case "
        "'([^/_]+)_[^/]*$'\n"
        "    slides/a/P12_3.svs and slides/b/P12_4.svs are of the case P12; with --case '^[^/]+' "
        "of the cases a and b\n\n"
        "tasks: semantic, classification, detection, instance, instance_masks",
    )  # fmt: skip
    init.add_argument("task", metavar="TASK", help="what to train")
    init.add_argument(
        "--slides",
        type=Path,
        required=True,
        metavar="DIR",
        help="slides or flat images, in folders below as well; or one slide",
    )
    init.add_argument(
        "--annotations",
        type=Path,
        metavar="DIR",
        help="files called like the slides, or one file that serves all",
    )
    init.add_argument(
        "--out", type=Path, default=Path(), help="folder for manifest.csv and pipeline.yaml (here)"
    )
    init.add_argument(
        "--case", metavar="REGEX",
        help="finds the patient in a slide's path below --slides: the first group, or all that it "
             "matches (else every slide is a "
        "case of its own, but for TCGA's)",
    )  # fmt: skip
    init.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a manifest.csv and a pipeline.yaml that are there",
    )


def _add_set(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of the pipeline, e.g. run.executor=serial, model.package=FOLDER, "
             "slide.tissue=all",
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 2
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, _stop)  # SLURM's warning before the walltime ends
    try:
        return COMMANDS[arguments.command](arguments)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 75
    except StoreError as error:
        print(f"quadrat: {error}", file=sys.stderr)
        return 74
    except QuadratError as error:
        print(f"quadrat: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"quadrat: {error.filename or ''} {error.strerror or error}".strip(), file=sys.stderr)
        return 74


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(
        f"signal {number}"
    )  # not an Exception: no code that survives a bad slide survives this


def _check_mpp(mpp: float | None) -> None:
    if mpp is not None and not 0 < mpp < float("inf"):
        raise ConfigError(f"--mpp is {mpp:g}; it must be a number of um/px above 0")


def _slides(arguments: argparse.Namespace) -> list[SlideRef]:
    from dataclasses import replace

    from quadrat.config.manifest import read_manifest, slides_from_paths

    _check_mpp(arguments.mpp)
    if arguments.regions is not None and (
        arguments.manifest is not None or len(arguments.slides) != 1
    ):
        raise ConfigError(
            "--regions belongs to one slide; for several, give a manifest with the column 'regions'"
        )
    if arguments.manifest is not None:
        if arguments.slides:
            raise ConfigError("give slides or --manifest, not both")
        slides = read_manifest(arguments.manifest)
        return [
            replace(s, mpp=arguments.mpp) if arguments.mpp and s.mpp is None else s for s in slides
        ]
    slides = slides_from_paths(arguments.slides, mpp=arguments.mpp)
    return [replace(s, regions=str(arguments.regions or "")) for s in slides]


def _pipeline(name: str, overrides: Sequence[str]) -> Pipeline:
    from quadrat.config.pipeline import load_pipeline

    return load_pipeline(name, overrides)


def _stage(arguments: argparse.Namespace) -> int:
    keep = {"tile": ['run.keep=["tiles"]'], "predict": ['run.keep=["tiles","predictions"]']}
    keep["stitch"] = keep["predict"]
    pipeline = _pipeline(
        arguments.pipeline, [*keep.get(arguments.command, []), *arguments.overrides]
    )
    slides = _slides(arguments)
    from quadrat.engine.run import run

    until = {"tile": "tile", "predict": "predict"}.get(arguments.command, "results")
    infer = arguments.command != "stitch"
    report = run(
        pipeline, slides, arguments.out, until=until, overwrite=arguments.overwrite, infer=infer
    )
    for line in _table(report):
        print(line)
    if until == "results":
        print(f"results: {arguments.out / 'results'}")
    return report.exit_code


def _table(report: RunReport) -> list[str]:
    """Slides by rows, in aligned columns; a failed slide shows its reason instead of figures."""
    rows = report.rows
    names = list(dict.fromkeys(name for row in rows for name, _ in row.figures))
    cells = [["slide", "status", "tissue mm2", *(name.removeprefix("count_") for name in names)]]
    for row in rows:
        figures = dict(row.figures)
        tissue = "" if row.tissue_mm2 is None else f"{row.tissue_mm2:.2f}"
        cells.append([row.slide, row.status, tissue, *(figures.get(name, "") for name in names)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return [
        lines[0],
        *(f"{line}  {row.reason}".rstrip() for line, row in zip(lines[1:], rows, strict=True)),
    ]


def _train(arguments: argparse.Namespace) -> int:
    init = [f"train.init={json.dumps(str(arguments.init))}"] if arguments.init else []
    pipelines = [_pipeline(name, [*arguments.overrides, *init]) for name in arguments.pipelines]
    from quadrat.training import plan

    if arguments.folds is None:
        courses = [plan.course_of(pipeline) for pipeline in pipelines]
    else:
        courses = [
            course
            for pipeline in pipelines
            for course in plan.folds_of(pipeline, arguments.folds or None)
        ]
    for name, folder in plan.train_courses(courses, overwrite=arguments.overwrite).items():
        print(f"{name}: {folder}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.distance_um < float("inf"):
        raise ConfigError(
            f"--distance-um is {arguments.distance_um:g}; it must be a number of um above 0"
        )
    pipeline = _pipeline(arguments.pipeline, arguments.overrides)
    from quadrat.cli import commands

    return commands.evaluate(
        pipeline,
        arguments.manifest,
        arguments.out,
        split=arguments.split,
        folds=arguments.folds,
        results=arguments.results,
        distance_um=arguments.distance_um,
        allow_seen=arguments.allow_seen,
        ranking=not arguments.no_ap,
        pictures=arguments.pictures,
        overwrite=arguments.overwrite,
        as_json=arguments.json,
        write=print,
    )


def _inspect(arguments: argparse.Namespace) -> int:
    from quadrat.cli import commands

    _check_mpp(arguments.mpp)
    return commands.inspect(
        arguments.slides,
        as_json=arguments.json,
        write=print,
        mpp=arguments.mpp,
        pictures=arguments.pictures,
    )


def _init(arguments: argparse.Namespace) -> int:
    from quadrat.cli import commands

    return commands.init(
        arguments.task,
        slides=arguments.slides,
        annotations=arguments.annotations,
        out=arguments.out,
        case=arguments.case,
        overwrite=arguments.overwrite,
        write=print,
    )


def _verify(arguments: argparse.Namespace) -> int:
    from quadrat.cli import commands

    return commands.verify(arguments.stores, write=print)


def _seams(arguments: argparse.Namespace) -> int:
    from quadrat.cli import commands

    return commands.seams(
        arguments.result,
        tile=arguments.tile,
        origin=tuple(arguments.origin),
        mpp=arguments.mpp,
        as_json=arguments.json,
        write=print,
    )


def _annotations(arguments: argparse.Namespace) -> int:
    from quadrat.cli import annotations

    _check_mpp(arguments.mpp)
    inputs, pipeline, mpp = arguments.inputs, arguments.pipeline, arguments.mpp
    if arguments.annotations_command == "check":
        return annotations.check(
            inputs, pipeline=pipeline, mpp=mpp, as_json=arguments.json, write=print
        )
    if arguments.annotations_command == "stats":
        return annotations.stats(
            inputs, pipeline=pipeline, mpp=mpp, by=arguments.by, as_json=arguments.json, write=print
        )
    return annotations.export(
        inputs,
        pipeline=pipeline,
        mpp=mpp,
        to=arguments.to,
        out=arguments.out,
        overwrite=arguments.overwrite,
        write=print,
    )


def _demo(arguments: argparse.Namespace) -> int:
    from quadrat.cli import commands

    return commands.demo(arguments.out, scale=arguments.scale, workers=arguments.workers)


def _phantom(arguments: argparse.Namespace) -> int:
    from quadrat.cli import commands

    height, width = arguments.size[0], arguments.size[-1]
    written = commands.phantom(
        arguments.out,
        name=arguments.name or f"phantom_{arguments.seed}",
        height=height,
        width=width,
        seed=arguments.seed,
        dominant=arguments.dominant,
        tissue=arguments.tissue,
    )
    print(written)
    return 0


COMMANDS = {
    "inspect": _inspect,
    "init": _init,
    "verify": _verify,
    "tile": _stage,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _stage,
    "stitch": _stage,
    "run": _stage,
    "seams": _seams,
    "annotations": _annotations,
    "demo": _demo,
    "phantom": _phantom,
}

if __name__ == "__main__":
    sys.exit(main())
