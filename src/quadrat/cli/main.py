"""The command ``quadrat``: which commands there are, and what becomes of an error. Nothing heavy is
imported before a command needs it."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Literal

from cyclopts import App, CycloptsError, Group, Parameter

from quadrat.cli import commands, comparing, exchange, hpc, models, pipelines, runs
from quadrat.cli.advise import advise
from quadrat.cli.annotations import check, export, stats
from quadrat.cli.certify import certify
from quadrat.cli.help import Columns
from quadrat.cli.measure import measure
from quadrat.cli.pages import report, view
from quadrat.cli.status import status
from quadrat.core.errors import (
    EXIT_AGAIN,
    EXIT_OK,
    EXIT_OUTPUT,
    EXIT_USAGE,
    ClusterError,
    ConfigError,
    QuadratError,
    StoreError,
)
from quadrat.core.native import keep_freed_memory
from quadrat.core.version import __version__

EXAMPLES = """\
examples:
  quadrat inspect slide.svs         what the file says: size, mpp, tissue
  quadrat run nuclei slide.svs      slide -> tissue -> model -> stitched counts
  quadrat run nuclei slides/ -j 8   all slides of a folder; again: go on
  quadrat view out                  slides and objects in a browser
  quadrat init                      which of the four kinds of model to train
  quadrat train my.yaml             train the model package of a pipeline
  quadrat evaluate my.yaml          how good it is on slides it has not seen
  quadrat demo --scale small        phantoms, four trainings, one table

exit codes: 0 all done, 1 some slides failed, 2 wrong usage (nothing ran),
74 output or disk, 75 interrupted (run again)
quadrat is for research use only, not for diagnosis."""

ABOUT_ANNOTATIONS = """\
Check, count and export annotation files.

examples:
  quadrat annotations check slides.csv --pipeline my.yaml
  quadrat annotations stats *.geojson --mpp 0.25
  quadrat annotations export slides.csv --to coco --out all.json"""
ABOUT_CONFIG = """\
What may stand in a pipeline file.

examples:
  quadrat config schema > quadrat.schema.json
  quadrat config docs > pipeline.md"""

ABOUT_MODELS = """\
Models: import other people's, list, show, check and export them.

examples:
  quadrat models import net.pt --card card.yaml --out my_model
  quadrat models check my_model slide.svs
  quadrat models export my_model --to bioimage.io --out folder"""

ABOUT_HPC = """\
Run a batch on a computing cluster (docs/hpc.md).

examples:
  quadrat hpc init nuclei slides.csv --out out --partition gpu --gpus 1
  quadrat hpc advise out --manifest slides.csv"""

COMMANDS: dict[str, Sequence[Callable[..., int]]] = {
    "Slides to results": (runs.run, runs.tile, runs.predict, runs.stitch, commands.inspect),
    "Results": (
        *(view, report, measure, comparing.diff, comparing.compare),
        *(exchange.figure, exchange.export, exchange.import_),
    ),
    "Models": (pipelines.pipelines, pipelines.init, pipelines.train, pipelines.evaluate),
    "Checks": (status, certify, commands.verify, commands.seams),
    "Phantoms": (commands.demo, commands.phantom),
}
GROUPS: dict[str, tuple[str, Sequence[Callable[..., int]]]] = {
    "annotations": (ABOUT_ANNOTATIONS, (check, stats, export)),
    "models": (
        ABOUT_MODELS,
        (models.import_, models.list_, models.show, models.check, models.export),
    ),
    "hpc": (ABOUT_HPC, (hpc.init, advise)),
    "config": (ABOUT_CONFIG, (pipelines.schema, pipelines.docs)),
}


def build_app() -> App:
    """The whole command line."""
    app = App(
        name="quadrat",
        help="Train and run image-analysis models on whole slides; one trustworthy result per "
        "slide.",
        help_epilogue=EXAMPLES,
        help_format="plaintext",
        help_formatter=Columns(),
        version=f"quadrat {__version__}",
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    groups = {title: Group(title, sort_key=order) for order, title in enumerate(COMMANDS)}
    for title, functions in COMMANDS.items():
        for order, function in enumerate(functions):
            app.command(function, group=groups[title], sort_key=order, help_epilogue="")
    for name, (text, functions) in GROUPS.items():
        title = "Models" if name == "models" else "Checks"
        several = App(name=name, help=text, group=groups[title], help_epilogue="")
        for order, function in enumerate(functions):
            several.command(function, sort_key=order)
        app.command(several)
    options = Group("Options", sort_key=len(groups))
    app.register_install_completion_command(
        group=options, help="Let the shell complete commands and options.", help_epilogue=""
    )
    app.command(show_completion, name="--show-completion", group=options, help_epilogue="")
    app["--help"].group = app["--version"].group = options
    return app


def show_completion(shell: Literal["bash", "zsh", "fish"] = "bash", /) -> int:
    """Print the script that --install-completion installs.

    Args:
        shell: which shell it is for
    """
    print(build_app().generate_completion(shell=shell))
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    keep_freed_memory()  # a command without workers computes in this process
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, _stop)  # SLURM's warning before the walltime ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a class may have a name beyond ASCII
    tokens = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(tokens)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return EXIT_AGAIN
    except CycloptsError as error:
        page = " ".join(("quadrat", *(error.command_chain or ()), "--help"))
        print(f"quadrat: {error} See '{page}'.", file=sys.stderr)
        return EXIT_USAGE
    except ClusterError as error:
        print(f"quadrat: {error}", file=sys.stderr)
        return EXIT_AGAIN
    except StoreError as error:
        print(f"quadrat: {error}", file=sys.stderr)
        return EXIT_OUTPUT
    except QuadratError as error:
        print(f"quadrat: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"quadrat: {error.filename or ''} {error.strerror or error}".strip(), file=sys.stderr)
        return EXIT_OUTPUT


def _run(tokens: list[str]) -> int:
    app = build_app()
    if "" in tokens and "__complete" not in tokens:
        raise ConfigError("an argument is empty (a variable of the shell that is not set?)")
    if tokens == ["init"]:  # which of the four kinds of model?
        app.help_print(tokens)
        return EXIT_USAGE
    code = app(tokens, print_error=False, exit_on_error=False, result_action="return_value")
    if code is None:  # a page was printed: by an option, or because the command is missing
        return EXIT_OK if any(token.startswith("-") for token in tokens) else EXIT_USAGE
    return int(code)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(
        f"signal {number}"
    )  # not an Exception: no code that survives a bad slide survives this


if __name__ == "__main__":
    sys.exit(main())
