"""The errors that a user meets. Each message is one sentence: the wrong value, the limit, the
slide, the remedy."""

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_OUTPUT, EXIT_AGAIN = 0, 1, 2, 74, 75
"""Exit codes: all done; some slides failed; wrong usage (nothing ran); output or disk; interrupted
(run again)."""


class QuadratError(Exception):
    """Anything that quadrat refuses on purpose. The command line prints it without a traceback."""


class ConfigError(QuadratError):
    """A wrong option, pipeline file, manifest or argument: nothing was run (exit code 2)."""


class SlideError(QuadratError):
    """A slide that cannot be read, or about which nothing must be guessed (no mpp, truncated, not
    an image)."""


class DamagedTileError(SlideError):
    """One tile (or block) of a slide cannot be decoded; the others can.

    ``level`` and ``box`` (row0, col0, row1, col1 in px of that level, half-open) say what is lost.
    """

    def __init__(self, message: str, *, level: int, box: tuple[int, int, int, int]) -> None:
        super().__init__(message)
        self.level = level
        self.box = box

    def __reduce__(self) -> tuple[object, ...]:
        # exceptions pickle by position otherwise
        return _damaged_tile, (str(self), self.level, self.box)


class SlideChangedError(SlideError):
    """A slide's file was replaced or written to while it was read."""


class StoreError(QuadratError):
    """A store with missing or damaged data, or a read outside what is stored."""


class WriteError(StoreError):
    """An output that cannot be written: the disk is full or faulty, or the right to write is
    missing (exit code 74). ``core/files.py`` makes it of what the system says."""


class ClusterError(QuadratError):
    """The cluster that a run uses is gone; what is done is kept, and the same command goes on."""


class OvertakenError(QuadratError):
    """Another driver has taken over what this one was stopped at for too long."""


class PackageError(QuadratError):
    """A model package that is incomplete, changed, or made for another task."""


class AnnotationError(QuadratError):
    """An annotation file or record that cannot be used as it is."""


def _damaged_tile(message: str, level: int, box: tuple[int, int, int, int]) -> DamagedTileError:
    return DamagedTileError(message, level=level, box=box)
