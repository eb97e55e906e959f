"""The losses of a training on disk: a CSV file that only grows, so that a checkpoint costs the same
after a million steps as after a hundred."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from quadrat.core.files import open_append

Row = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a log is whole."""

    bytes: int
    """From its beginning."""
    sha256: str
    """Of these bytes."""


class Log:
    """A CSV file of rows with the columns of its first row, the first of which holds whole numbers.

    The file does not say how much of it is whole: something else must, such as a checkpoint. What
    lies behind was written by a process that was killed, and is cut off by the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: tuple[str, ...] = ()
        self._bytes = 0
        self._digest = hashlib.sha256()

    @property
    def extent(self) -> Extent:
        """What has been read and written."""
        return Extent(self._bytes, self._digest.hexdigest())

    def read(self, extent: Extent) -> list[dict[str, float]]:
        """The rows of the whole part; what is appended goes behind them.

        Raises:
            OSError: it cannot be read. ValueError: it is not what was written.
        """
        with self.path.open("rb") as stream:
            content = stream.read(extent.bytes)
        self._digest = hashlib.sha256(content)
        self._bytes = len(content)
        if self.extent != extent:
            raise ValueError(f"{self.path.name} is not the file that was written")
        reader = csv.reader(io.StringIO(content.decode(), newline=""))
        self._columns = tuple(next(reader, ()))
        return [
            {name: float(value) for name, value in zip(self._columns, row, strict=True)}
            | {self._columns[0]: int(row[0])}
            for row in reader
        ]

    def append(self, rows: Sequence[Row]) -> None:
        """More rows. They are on the disk when this returns.

        Raises:
            WriteError: they cannot be written. ValueError: they have other columns.
        """
        if not rows:
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns or tuple(rows[0]))
        if not self._columns:
            writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
        with closing(open_append(self.path, length=self._bytes)) as file:
            file.write(content)
            file.sync()
        self._columns = tuple(writer.fieldnames)
        self._bytes += len(content)
        self._digest.update(content)
