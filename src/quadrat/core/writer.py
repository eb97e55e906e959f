"""What the writers of results have in common: their files appear at the end, or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from types import TracebackType
from typing import Self


class Writer(ABC):
    """A context manager that opens files at its start and completes them at its end."""

    _open: ExitStack

    @abstractmethod
    def _begin(self, stack: ExitStack) -> None:
        """Open the files on the stack, which closes them after :meth:`_end` or an exception."""

    @abstractmethod
    def _end(self) -> None:
        """Write what is still missing; not called after an exception."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._begin(stack)
            stack.push(self._finish)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._end()
