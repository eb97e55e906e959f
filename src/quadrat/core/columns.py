"""Tables as columns: named arrays of one length, checked when they are made (pure; numpy only)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.integer] | npt.NDArray[np.bool_] | slice


class Columns:
    """Base of a frozen, slotted dataclass, each field of which is a column: an array (n, ...).

    Raises:
        ValueError: a column of another length, shape or dtype than the class states.
    """

    __slots__ = ()
    COLUMNS: ClassVar[Mapping[str, tuple[tuple[int | None, ...], Any]]] = {}
    """Of each field: the shape of one row, and the dtype. None in a shape: any number."""

    def __post_init__(self) -> None:
        n = len(self)
        for name, (row, dtype) in self.COLUMNS.items():
            array = getattr(self, name)
            fits = array.ndim == 1 + len(row) and all(
                wanted is None or wanted == found
                for wanted, found in zip((n, *row), array.shape, strict=True)
            )
            if not fits or array.dtype != dtype:
                shape = ", ".join("any" if side is None else str(side) for side in (n, *row))
                raise ValueError(
                    f"{type(self).__name__}.{name} is {array.dtype}{array.shape}, want "
                    f"{np.dtype(dtype)}({shape}{'' if row else ','})"
                )

    def __len__(self) -> int:
        """The number of rows."""
        return len(getattr(self, next(iter(self.COLUMNS))))

    @classmethod
    def empty(cls) -> Self:
        """No rows; a column of any width has none."""
        return cls(
            **{n: np.zeros((0, *(side or 0 for side in r)), d) for n, (r, d) in cls.COLUMNS.items()}
        )

    def take(self, index: Index) -> Self:
        """The rows of an index array, a mask or a slice, in its order."""
        return type(self)(**{name: getattr(self, name)[index] for name in self.COLUMNS})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts in the order given; of no parts, no rows."""
        if not parts:
            return cls.empty()
        return cls(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in cls.COLUMNS})
