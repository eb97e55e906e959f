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
    """override a key of the pipeline, e.g. run.threads=2 (docs/pipeline.md)"""
    workers: Annotated[int | None, Parameter(name=("--workers", "-j"), metavar="N")] = None
    """worker processes, in place of run.workers (and of run.cluster: serial)"""
    cluster: Annotated[str | None, Parameter(metavar="WHERE")] = None
    """where jobs run, in place of run.cluster: local, serial, srun, slurm, an address, or a
    scheduler file (docs/hpc.md)"""
    insecure_cluster: bool = False
    """let a cluster without TLS be used"""
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

        options = {"workers": self.workers, "device": self.device, "cluster": self.cluster}
        given = {key: value for key, value in options.items() if value is not None}
        if self.insecure_cluster:
            given["insecure_cluster"] = True
        last = [f"run.{key}={json.dumps(value)}" for key, value in given.items()]
        pipeline = load_pipeline(name, [*first, *self.overrides, *last])
        if self.workers is None or pipeline.run.cluster != "serial":
            return pipeline
        by_hand = any(text.partition("=")[0].strip() == "run.cluster" for text in self.overrides)
        if self.cluster is not None or by_hand:
            raise ConfigError(
                f"--workers {self.workers} asks for processes, and run.cluster=serial for none; "
                "leave one of them out"
            )
        return load_pipeline(name, [*first, *self.overrides, *last, "run.cluster=local"])

    def reporter(self) -> Reporter:
        """Reports progress as loudly as is asked for."""
        from quadrat.engine.progress import Reporter

        return Reporter(quiet=self.quiet, verbose=self.verbose)
