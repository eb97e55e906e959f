"""Options that several commands share, as typed values."""

from __future__ import annotations

import glob
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from quadrat.core.errors import ConfigError

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

    from quadrat.config.pipeline import Pipeline
    from quadrat.engine.progress import Reporter


def above_zero(name: str, unit: str) -> Parameter:
    """An option that must be a number above 0."""

    def check(_: object, value: float | str | None) -> None:
        if isinstance(value, float | int) and not 0 < value < float("inf"):
            raise ConfigError(f"{name} is {value:g}; it must be a number of {unit} above 0")

    return Parameter(validator=check, metavar=unit.upper())


def _pipeline_names(context: CompletionContext) -> list[str]:
    """What may stand for PIPELINE, for the completion of the shell."""
    from quadrat.config.pipeline import shipped_pipelines

    shipped = [path.stem for path in shipped_pipelines().glob("*.yaml")]
    own = Path().glob(f"{glob.escape(context.incomplete)}*")
    return shipped + [f"{path}/" if path.is_dir() else str(path) for path in own]


Name = Annotated[str, Parameter(metavar="PIPELINE", completer=_pipeline_names)]
Mpp = Annotated[float | None, above_zero("--mpp", "um/px")]
MppOrPx = Annotated[float | Literal["px"] | None, above_zero("--mpp", "um/px")]
"""As :data:`Mpp`, or px: for pictures without a scale, as ``model.mpp: px``."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command has that runs a pipeline."""

    overrides: Annotated[tuple[str, ...], Parameter(name="--set", metavar="KEY=VALUE")] = ()
    """override a key of the pipeline, e.g. run.executor=serial (docs/pipeline.md)"""
    workers: Annotated[int | None, Parameter(name=("--workers", "-j"), metavar="N")] = None
    """worker processes, in place of run.workers (and of run.executor: serial)"""
    device: Annotated[str | None, Parameter(metavar="NAME")] = None
    """where the network runs, in place of run.device: auto, cpu, cuda, cuda:1, mps"""
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"))] = False
    """no progress, only results and errors"""
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"))] = False
    """print what goes into the log as well, tracebacks among it"""

    def pipeline(self, name: str, *first: str) -> Pipeline:
        """The pipeline with ``first``, then with the user's overrides.

        Raises:
            ConfigError: see :func:`quadrat.config.pipeline.load_pipeline`; or workers are asked for
                and none.
        """
        from quadrat.config.pipeline import load_pipeline

        last = [f"run.workers={self.workers}"] if self.workers is not None else []
        last += [f"run.device={json.dumps(self.device)}"] if self.device is not None else []
        by_hand = any(text.partition("=")[0].strip() == "run.executor" for text in self.overrides)
        if self.workers is not None and not by_hand:
            last.append("run.executor=dask")
        pipeline = load_pipeline(name, [*first, *self.overrides, *last])
        if self.workers is not None and pipeline.run.executor == "serial":
            raise ConfigError(
                f"--workers {self.workers} asks for processes, and --set run.executor=serial for "
                "none; leave one of them out"
            )
        return pipeline

    def reporter(self) -> Reporter:
        """Reports progress as loudly as is asked for."""
        from quadrat.engine.progress import Reporter

        return Reporter(quiet=self.quiet, verbose=self.verbose)
