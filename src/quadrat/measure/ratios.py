"""Ratios of counts: what a measurement file may say, and the interval of a proportion (pure).

A ratio is two sums of classes: ``positive / (positive + negative)``. Where the classes above are
among those below it is a proportion, and has an interval.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quadrat.core.errors import ConfigError
from quadrat.core.text import did_you_mean

Z = 1.959963984540054
"""97.5 % of a normal distribution lie below it."""
_TOKEN = re.compile(r"""\s*(?:(?P<name>[^\W\d][\w-]*)|"(?P<quoted>[^"]+)"|(?P<sign>[+/()]))""")


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of counts."""

    name: str
    """What the table calls it."""
    above: tuple[str, ...]
    """Classes that are added up for the numerator."""
    below: tuple[str, ...]
    """And for the denominator."""

    @property
    def is_proportion(self) -> bool:
        """Whether what is above is a part of what is below."""
        return set(self.above) <= set(self.below)

    def counts(self, count: Mapping[str, int]) -> tuple[int, int]:
        """Numerator and denominator."""
        return sum(count[name] for name in self.above), sum(count[name] for name in self.below)


def parse_ratio(name: str, text: str, *, classes: Sequence[str]) -> Ratio:
    """A ratio as it is written: ``SUM / SUM``, where a SUM is a class, or classes with ``+``
    between them, in brackets. A class that is no plain word stands in quotes.

    Raises:
        ConfigError: it says something else, or names a class that the run does not know.
    """
    words = _words(name, text)
    where = f"ratios.{name}: '{text}'"
    above, rest = _sum(words, where)
    if not rest or rest[0] != ("sign", "/"):
        raise ConfigError(f"{where} is no ratio; write 'a / (a + b)' with names of classes")
    below, rest = _sum(rest[1:], where)
    if rest:
        raise ConfigError(f"{where}: nothing may stand after the second sum ('{rest[0][1]}')")
    for side in (above, below):
        for one in side:
            if one not in classes:
                raise ConfigError(
                    f"{where}: the run knows no class '{one}' (it has {', '.join(classes)})"
                    f"{did_you_mean(one, classes)}"
                )
        if len(set(side)) < len(side):
            raise ConfigError(f"{where}: a class stands twice in one sum")
    return Ratio(name, above, below)


def _words(name: str, text: str) -> list[tuple[str, str]]:
    words, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ConfigError(
                f"ratios.{name}: '{text}' cannot be read at '{text[at:].strip()}'; only names of "
                'classes (others than plain words in "quotes"), +, / and brackets may stand there'
            )
        kind = "sign" if found["sign"] else "name"
        words.append((kind, found["sign"] or found["name"] or found["quoted"]))
        at = found.end()
    return words


def _sum(words: list[tuple[str, str]], where: str) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """The classes of a sum, and what stands after it."""
    bracket = bool(words) and words[0] == ("sign", "(")
    rest = words[1:] if bracket else words
    names = []
    while True:
        if not rest or rest[0][0] != "name":
            found = f"'{rest[0][1]}'" if rest else "the end"
            raise ConfigError(f"{where}: a class must stand where {found} is")
        names.append(rest[0][1])
        rest = rest[1:]
        if not (bracket and rest and rest[0] == ("sign", "+")):
            break
        rest = rest[1:]
    if bracket:
        if not rest or rest[0] != ("sign", ")"):
            raise ConfigError(f"{where}: a bracket is not closed")
        rest = rest[1:]
    elif rest and rest[0] == ("sign", "+"):
        raise ConfigError(f"{where}: put sums in brackets: (a + b)")
    return tuple(names), rest


def wilson(part: int, whole: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, JASA 22, 1927); NaN where ``whole`` is 0."""
    if whole == 0:
        return math.nan, math.nan
    share, z2 = part / whole, Z * Z
    middle = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    half = Z / (1 + z2 / whole) * math.sqrt(share * (1 - share) / whole + z2 / (4 * whole**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
