"""``quadrat models``: other people's models in, models out, and what is known of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from quadrat.cli.options import Mpp
from quadrat.core.errors import EXIT_OK, ConfigError, PackageError
from quadrat.core.text import aligned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ABOUT = ("license", "source", "citation", "description", "limits")
"""What a card says in words."""
AsJson = Annotated[bool, Parameter(name="--json")]
Package = Annotated[Path, Parameter(metavar="PACKAGE")]


def import_(
    file: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    /,
    *,
    card: Annotated[Path | None, Parameter(metavar="YAML")] = None,
    out: Annotated[Path | None, Parameter(metavar="PACKAGE")] = None,
    trust: bool = False,
    example: Annotated[str, Parameter(metavar="DECODER")] = "",
) -> int:
    """Make a package of a network that was not trained here.

    FILE is TorchScript (.pt), torch.export (.pt2), ONNX (.onnx, needs
    quadrat[onnx]), or safetensors with an architecture in the card; or the
    folder of a WSInfer model, a bioimage.io model or a MONAI bundle, which
    need no card if they say enough. The network's stride and reach are
    measured, and the package says what it promises (docs/models.md).

    examples:
      quadrat models import --example hovernet > card.yaml
      quadrat models import net.pt --card card.yaml --out my_model
      quadrat run my_model slide.svs
      quadrat models import a_bioimage_io_folder --out my_model

    Args:
        file: file or folder of the model
        card: what there is to know of it; its keys come before those that the
            folder of a model states
        out: folder of the package
        trust: load a pickle, and with it whatever code it holds
        example: print a card to begin with
    """
    from quadrat.cli.import_examples import example_card

    if example:
        print(example_card(example), end="")
        return EXIT_OK
    if file is None or out is None:
        raise ConfigError("give the file of a model, and with --out the folder of its package")
    from quadrat.models.foreign.importing import import_model
    from quadrat.models.foreign.sources import source_of
    from quadrat.tasks import get_task

    source = source_of(file, card)
    found = import_model(
        source.network,
        source.card,
        out,
        task_named=get_task,
        trust=trust,
        examples=source.examples,
    )
    for line in (*source.notes, *found.notes):
        print(f"note: {line}")
    print(_shown(found.folder))
    print(f"run it: quadrat run {out} slide.svs")
    return EXIT_OK


def list_(*folders: Annotated[Path, Parameter(metavar="FOLDER")], as_json: AsJson = False) -> int:
    """The shipped models, and those in given folders.

    examples:
      quadrat models list
      quadrat models list models/

    Args:
        folders: packages, or folders of them
        as_json: one JSON object per model
    """
    from quadrat.config.pipeline import shipped_pipelines
    from quadrat.models.card import read_card

    rows = [["package", "task", "mpp", "classes", "promise", "license"]]
    for folder in (shipped_pipelines() / "packages", *folders):
        for package in _packages(folder):
            facts = _facts(package, read_card(package))
            if as_json:
                print(json.dumps(facts))
            rows.append(
                [
                    str(package),
                    facts["task"],
                    str(facts["mpp"]),
                    ", ".join(facts["classes"]),
                    facts["promise"],
                    facts["license"],
                ]
            )
    if not as_json:
        print("\n".join(aligned(rows)))
    return EXIT_OK


def show(package: Package, /, *, as_json: AsJson = False) -> int:
    """What a model package says of itself.

    examples:
      quadrat models show my_model
      quadrat models show nuclei

    Args:
        package: folder of the package, or the name of a shipped one
        as_json: the card itself
    """
    from quadrat.models.card import read_card

    folder = _folder(package)
    print(json.dumps(read_card(folder), indent=2) if as_json else _shown(folder))
    return EXIT_OK


def check(
    package: Package,
    slide: Annotated[Path, Parameter(metavar="SLIDE")],
    /,
    *,
    out: Annotated[Path, Parameter(metavar="FOLDER")] = Path("model_check"),
    mpp: Mpp = None,
    scene: str = "",
    device: Annotated[str, Parameter(metavar="NAME")] = "auto",
    threads: Annotated[int, Parameter(metavar="N")] = 1,
    as_json: AsJson = False,
) -> int:
    """Try a model on the three windows of a slide with most tissue.

    Pictures of what it sees and answers, stride and reach, how much two
    windows disagree at their seam, time and memory.

    examples:
      quadrat models check my_model slide.svs --out looks

    Args:
        package: folder of the package, or the name of a shipped one
        slide: a slide
        out: folder for the pictures
        mpp: um/px of the slide, instead of what the file states
        scene: which of several pictures in the file, by name or number
        device: where the network runs: auto, cpu, cuda, cuda:1, mps
        threads: threads of torch
        as_json: one JSON object
    """
    from dataclasses import asdict

    from quadrat.engine.trial import try_model
    from quadrat.models.package import load_package
    from quadrat.tasks import build_network

    folder = _folder(package)
    loaded = load_package(folder, build_network)
    trial = try_model(loaded, str(slide), out, mpp=mpp, scene=scene, device=device, threads=threads)
    exact = loaded.card["exactness"]
    if as_json:
        print(json.dumps({"exactness": exact, **asdict(trial)}, indent=2))
        return EXIT_OK
    print(_shown(folder))
    speed = f"{trial.seconds:.3f} s a window"
    if trial.seconds_per_mm2 is not None:
        speed += f", {trial.seconds_per_mm2:.2f} s per mm2"
    lines = [
        *(("found", f"{text} ({path})")
          for text, path in zip(trial.found, trial.pictures, strict=True)),
        *([("moved", _moved(*trial.moved))] if trial.moved else []),
        ("seams", _seams(trial.mismatch)),
        ("network", f"{speed} ({trial.device}, {threads} threads)"),
        ("memory", f"{trial.peak_mb} MiB at most, of this whole process"),
    ]  # fmt: skip
    print("\n".join(f"  {name:<11} {text}" for name, text in lines))
    return EXIT_OK


def _moved(differ: int, compared: int) -> str:
    return (
        f"windows that lie half a core further give {differ} of {compared} stored values otherwise"
    )


def _seams(mismatch: Mapping[str, Any] | None) -> str:
    if mismatch is None:
        return "no two windows answer for the same place"
    seam = mismatch["at_seam"]
    return (
        f"{mismatch['pairs']} pairs of windows differ within {mismatch['strip_px']} px of their "
        f"seam by {seam['mean_abs']:.4f} on average and {seam['max_abs']:.3f} at most (of 1); "
        f"{100 * seam['flipped_share']:.2f} % of decisions flip"
    )


def export(
    package: Package,
    /,
    *,
    to: Annotated[Literal["torchscript", "onnx", "bioimage.io"], Parameter(metavar="FORMAT")],
    out: Annotated[Path, Parameter(metavar="FOLDER")],
) -> int:
    """Write a model package for other programs.

    RGB in 0-255 goes in, probabilities come out: normalisation and the last
    activation are inside. An import card lies beside the network. ONNX
    needs quadrat[onnx].

    examples:
      quadrat models export my_model --to onnx --out folder
      quadrat models export my_model --to bioimage.io --out folder

    Args:
        package: folder of the package, or the name of a shipped one
        to: what other programs read
        out: folder to write, which must not be there yet
    """
    from quadrat.models.foreign.exporting import export_package
    from quadrat.models.package import load_package
    from quadrat.tasks import build_network

    if out.exists():
        raise ConfigError(f"--out {out} is there; name a folder that is not")
    folder = _folder(package)
    name = folder.resolve().name
    files = export_package(load_package(folder, build_network), out, to=to, name=name)
    print("\n".join(str(out / file) for file in files))
    return EXIT_OK


def _folder(package: Path) -> Path:
    """The folder of a package; a name alone may be that of a shipped one."""
    from quadrat.config.pipeline import shipped_pipelines

    shipped = shipped_pipelines() / "packages" / package.name
    alone = package == Path(package.name) and not package.exists()
    return shipped if alone and shipped.is_dir() else package


def _packages(folder: Path) -> Sequence[Path]:
    """A folder that is a package, or the packages in it.

    Raises:
        ConfigError: it is neither.
    """
    if (folder / "card.json").is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob("*/card.json"))
    if not inside:
        raise ConfigError(f"{folder} is no model package, and there is none in it")
    return inside


def _facts(package: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    try:
        spec = card["spec"]
        return {
            "package": str(package),
            "task": spec["task"],
            "mpp": spec.get("mpp", "px"),
            "classes": [one["name"] for one in spec["classes"]],
            "lattice": spec["lattice"],
            "promise": card["exactness"]["promise"],
            "license": card.get("license", "not stated"),
            "imported": "foreign" in card,
        }
    except (KeyError, TypeError) as error:
        raise PackageError(f"{package}/card.json is incomplete ({error})") from error


def _shown(package: Path) -> str:
    """A card for people."""
    from quadrat.models.card import read_card

    card = read_card(package)
    facts, exact, lattice = _facts(package, card), card["exactness"], card["spec"]["lattice"]
    core, halo = lattice["core"], lattice["halo"]
    scale = "px" if facts["mpp"] == "px" else f"{facts['mpp']:g} um/px"
    lines = [
        ("task", f"{facts['task']} at {scale}"),
        ("classes", ", ".join(facts["classes"])),
        ("network", _network(card)),
        (
            "window",
            f"{core + 2 * halo} px: core {core}, halo {halo}, stride {lattice['stride']} "
            f"(window over core {exact.get('window_over_core', '?')})",
        ),
        ("promise", _promise(exact)),
        *((key, str(card[key])) for key in ABOUT if card.get(key)),
        ("sha256", card["weights_sha256"]),
        ("use", card.get("intended_use", "")),
    ]  # fmt: skip
    return "\n".join([str(package), *(f"  {name:<11} {text}" for name, text in lines)])


def _network(card: Mapping[str, Any]) -> str:
    foreign = card.get("foreign")
    if foreign is None:
        return f"trained by quadrat, encoder {card['spec']['encoder']}"
    name = f", {foreign['architecture']}" if foreign["architecture"] else ""
    return f"imported, {foreign['format']}{name}, decoder {foreign['decoder']}"


def _promise(exact: Mapping[str, Any]) -> str:
    radius = exact.get("receptive_radius_px")
    reach = "" if radius is None else f", receptive radius {radius} px"
    if exact["promise"] == "tiling-exact":
        return f"tiling-exact: the answer does not depend on windows{reach}"
    why = exact.get("why") or (
        "the network sees its whole window" if radius is None else f"halo {exact['halo_px']} px"
    )
    return (
        f"schedule-exact: the same bytes in any order of work, but windows are seen ({why}{reach})"
    )
