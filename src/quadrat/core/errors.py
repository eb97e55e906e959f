"""The errors a user meets. Each message is one sentence: the wrong value, the limit, the slide, the
way to mend it."""

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_OUTPUT, EXIT_AGAIN = 0, 1, 2, 74, 75
"""Exit codes: all done; some slides failed; wrong usage (nothing ran); output or disk; interrupted
(run again)."""


class QuadratError(Exception):
    """Anything quadrat refuses knowingly; the command line prints it without a traceback."""


class ConfigError(QuadratError):
    """A wrong option, pipeline file, manifest or argument: nothing ran (exit code 2)."""


class SlideError(QuadratError):
    """A slide that cannot be read or must not be guessed at (no mpp, truncated, not an image)."""


class DamagedTileError(SlideError):
    """One tile (or block) of a slide cannot be decoded; the others can.

    ``level`` and ``box`` (row0, col0, row1, col1 in that level's px, half-open) say what is lost.
    """

    def __init__(self, message: str, *, level: int, box: tuple[int, int, int, int]) -> None:
        super().__init__(message)
        self.level = level
        self.box = box

    def __reduce__(self) -> tuple[object, ...]:
        return _damaged_tile, (
            str(self),
            self.level,
            self.box,
        )  # exceptions pickle by position otherwise


class StoreError(QuadratError):
    """A store that lacks, or holds damaged, data; or a read outside what is stored."""


class PackageError(QuadratError):
    """A model package that is incomplete, altered, or made for another task."""


class AnnotationError(QuadratError):
    """An annotation file or record that cannot be used as it is."""


def _damaged_tile(message: str, level: int, box: tuple[int, int, int, int]) -> DamagedTileError:
    return DamagedTileError(message, level=level, box=box)
