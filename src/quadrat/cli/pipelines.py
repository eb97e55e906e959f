"""Commands on pipelines: list them, begin one, train it, evaluate it, and what may stand in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from quadrat.cli.options import Common, MppOrPx, Name, above_zero
from quadrat.core.errors import EXIT_OK
from quadrat.core.text import aligned
from quadrat.core.unit import PX

DEFAULTS = Common()
Folds = Annotated[bool | int, Parameter(metavar="[K]")]


def pipelines() -> int:
    """The pipelines that are shipped.

    Task, mpp, whether a model is there, classes, and what it is.

    examples:
      quadrat pipelines
      quadrat run NAME slide.svs
    """
    from quadrat.config.pipeline import load_pipeline, shipped_pipelines

    rows = [["name", "task", "mpp", "model", "classes", "description"]]
    for path in sorted(shipped_pipelines().glob("*.yaml")):
        one = load_pipeline(str(path))
        card = path.parent / one.model.package / "card.json"
        rows.append(
            [
                one.name,
                one.task,
                one.model.mpp if one.model.mpp == PX else f"{one.model.mpp:g}",
                "shipped" if card.is_file() else "to train",
                ", ".join(c.name for c in one.classes),
                one.description,
            ]
        )
    for line in aligned(rows):
        print(line)
    return EXIT_OK


def init(
    task: str,
    /,
    *,
    slides: Annotated[Path, Parameter(metavar="DIR")],
    annotations: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    out: Path = Path(),
    case: Annotated[str | None, Parameter(metavar="REGEX")] = None,
    mpp: MppOrPx = None,
    mpp_from: Annotated[str | None, Parameter(metavar="NAME=SIZE")] = None,
    overwrite: bool = False,
) -> int:
    """Write a manifest and a pipeline from folders of files.

    Which of the four kinds of model (in detail: docs/choosing.md):

      TASK            you draw                   you get
      semantic        areas of tissue            a class per pixel, mm2 per class
      classification  areas, or one label per    a class per tile and per slide
                      slide
      detection       a box or a point per       boxes and counts, the fast way
                      object                     to count
      instance        an outline per object      outlines, counts, areas and shapes
                                                 of small and crowded objects
      instance_masks  an outline per object      the same for large or few objects,
                                                 such as glands or glomeruli

    examples:
      quadrat init detection --slides slides --annotations drawn --out mine
      quadrat init instance --slides images --annotations coco.json --out mine
      quadrat init classification --slides folder_with_a_folder_per_class --out mine
      quadrat init detection --slides slides --annotations drawn --out mine \\
          --case '([^/_]+)_[^/]*$'
        slides/a/P12_3.svs and slides/b/P12_4.svs are of the case P12; with
        --case '^[^/]+' they are of the cases a and b
      quadrat init detection --slides smears --annotations boxes --out mine \\
          --mpp-from RBC=7um

    Args:
        task: what to train
        slides: slides or flat images, in folders below as well; or one slide
        annotations: files with the names of the slides, or one file that serves all
        out: folder for manifest.csv and pipeline.yaml
        case: finds the patient in a slide's path below --slides: the first group, or the whole
            match (left out: every slide is a case of its own, except TCGA's)
        mpp: um/px of slides that state none; px: work in pixels, without any scale
        mpp_from: the same from the median diameter of what is annotated: objects=7um, or of
            one class, RBC=7um
        overwrite: replace a manifest.csv and a pipeline.yaml that are there
    """
    from quadrat.cli.init import start

    report = start(
        task,
        slides=slides,
        annotations=annotations,
        out=out,
        case=case,
        mpp=mpp,
        mpp_from=mpp_from,
        overwrite=overwrite,
    )
    for line in report.lines:
        print(line)
    return EXIT_OK


def train(
    pipeline: Name,
    /,
    *pipelines: Name,
    overwrite: bool = False,
    init: Annotated[Path | None, Parameter(metavar="PACKAGE")] = None,
    folds: Folds = False,
    options: Common = DEFAULTS,
) -> int:
    """Train the model package of a pipeline.

    The same command again goes on where it stopped.

    examples:
      quadrat train nuclei
      quadrat train my.yaml --set train.steps=2000 --set train.threads=2
      quadrat train my.yaml --init packages/nuclei --set train.lr=1e-3
      quadrat train my.yaml --folds 5 -j 2

    Args:
        pipeline: a shipped pipeline's name, or a YAML file; data.manifest names the slides
        pipelines: more of them, trained side by side
        overwrite: train again although the package exists
        init: go on from the weights of this package
        folds: cross-validate: K trainings side by side, each leaving out other cases (without K:
            as the manifest's column 'fold' says); packages PACKAGE.fold0, .fold1, ...
    """
    first = [f"train.init={json.dumps(str(init))}"] if init else []
    loaded = [options.pipeline(name, *first) for name in (pipeline, *pipelines)]
    from quadrat.engine.cluster import processes_here
    from quadrat.training import plan

    trainings = [
        training
        for one in loaded
        for training in (
            [plan.training_of(one)] if folds is False else plan.folds_of(one, _count(folds) or None)
        )
    ]
    made = plan.train_all(
        trainings,
        overwrite=overwrite,
        workers=processes_here(trainings[0].pipeline.run),
        reporter=options.reporter(),
    )
    for name, folder in made.items():
        print(f"{name}: {folder}")
    return EXIT_OK


def evaluate(
    pipeline: Name,
    /,
    *,
    manifest: Path | None = None,
    split: str = "test",
    folds: Folds = False,
    out: Path = Path("quadrat_evaluation"),
    results: Annotated[tuple[Path, ...], Parameter(consume_multiple=1, metavar="DIR")] = (),
    distance_um: Annotated[float | None, above_zero("--distance-um", "um")] = None,
    allow_seen: bool = False,
    no_ap: bool = False,
    pictures: bool = False,
    overwrite: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    options: Common = DEFAULTS,
) -> int:
    """How good a package is on annotated, unseen slides.

    examples:
      quadrat evaluate my.yaml --manifest slides.csv --out evaluated
      quadrat evaluate my.yaml --split val --json
      quadrat evaluate my.yaml --folds --out evaluated
      quadrat evaluate my.yaml --results run1/results run2/results

    Args:
        pipeline: a shipped pipeline's name, or a YAML file
        manifest: CSV of annotated slides, in place of the pipeline's data.manifest
        split: slides of this split: test, val, train, or all
        folds: the packages of a cross-validation ('quadrat train --folds'), each on the cases it
            has not seen, pooled
        out: folder of the evaluation
        results: finished results; nothing is run
        distance_um: greatest distance of a matched point (6; where model.mpp is px in px, and half
            of data.point_diameter_um)
        allow_seen: evaluate although the model may have seen these cases
        no_ap: do not run a second time for average precision
        pictures: write overlays and GeoJSON of each slide as well
        overwrite: replace results of other settings
        as_json: one JSON object, the content of metrics.json
    """
    loaded = options.pipeline(pipeline)
    from quadrat.engine.cluster import processes_here
    from quadrat.evaluation import evaluate

    how = evaluate.EvaluationOptions(
        split=split,
        results=results,
        allow_seen=allow_seen,
        settings=evaluate.settings_of(loaded, distance_um=distance_um),
        ranking=not no_ap,
        pictures=pictures,
        overwrite=overwrite,
        workers=processes_here(loaded.run),
    )
    jobs = evaluate.evaluation_jobs(
        loaded, manifest, out, how, folds=None if folds is False else _count(folds)
    )
    return evaluate.command(
        jobs, out, how, as_json=as_json, write=print, reporter=options.reporter()
    )


def _count(folds: bool | int) -> int:
    """K of ``--folds K``; 0, which means as the manifest says, of ``--folds`` alone."""
    return 0 if folds is True else int(folds)


def schema() -> int:
    """The JSON Schema of pipeline files, for editors.

    examples:
      quadrat config schema > quadrat.schema.json
        and as the first line of a pipeline:
        # yaml-language-server: $schema=quadrat.schema.json
    """
    from quadrat.config.pipeline import pipeline_schema

    print(json.dumps(pipeline_schema(), indent=2))
    return EXIT_OK


def docs() -> int:
    """The page of all keys: default, unit, values, meaning.

    examples:
      quadrat config docs > docs/pipeline.md
    """
    from quadrat.config.pipeline import pipeline_schema
    from quadrat.config.reference import markdown

    print(markdown(pipeline_schema()), end="")
    return EXIT_OK
