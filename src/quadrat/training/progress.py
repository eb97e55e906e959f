"""How far trainings are: each leaves a small file, which the driver in another process reads."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from quadrat.core.errors import WriteError
from quadrat.core.files import write_file
from quadrat.engine.progress import Phase
from quadrat.training.loop import Event

WRITE_EVERY_S = 1.0
READ_EVERY_S = 1.0


class ProgressFile:
    """A callback of the training loop that writes how far it is, once in a second at most."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._written = -float("inf")

    def __call__(self, event: Event) -> None:
        """Write the steps done and the loss after a step."""
        if event.kind != "step":
            return
        if self._clock() - self._written < WRITE_EVERY_S and event.done < event.steps:
            return
        self._written = self._clock()
        with contextlib.suppress(WriteError):  # on a full disk the checkpoint says so
            write_file(self._path, json.dumps({"done": event.done, "loss": event.loss}))


class ProgressReader:
    """What the progress files of several trainings say together."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths, self._done = paths, 0

    def news(self) -> tuple[int, str]:
        """Steps done since the last call, and the present loss of each training."""
        done, losses = 0, []
        for path in self._paths:
            with contextlib.suppress(OSError, ValueError, KeyError):
                found = json.loads(path.read_text())
                done += found["done"]
                losses.append(f"{found['loss']:.3f}")
        new = max(0, done - self._done)
        self._done += new
        return new, f"loss {' '.join(losses)}"


@contextlib.contextmanager
def shown(paths: Sequence[Path], bar: Phase) -> Iterator[None]:
    """Move a progress bar by what the trainings write, until the block ends."""
    for path in paths:
        path.unlink(missing_ok=True)
    reader, over = ProgressReader(paths), threading.Event()

    def look() -> None:
        new, note = reader.news()
        if new:
            bar.advance(new, note=note)

    def watch() -> None:
        while not over.wait(READ_EVERY_S):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
