"""The errors a user meets. Each message is one sentence: the wrong value, the limit, the slide, the way to mend it."""


class QuadratError(Exception):
    """Anything quadrat refuses knowingly; the command line prints it without a traceback."""


class ConfigError(QuadratError):
    """A wrong option, pipeline file, manifest or argument: nothing ran (exit code 2)."""


class SlideError(QuadratError):
    """A slide that cannot be read or must not be guessed at (no mpp, truncated, not an image)."""


class StoreError(QuadratError):
    """A store that lacks, or holds damaged, data; or a read outside what is stored."""


class PackageError(QuadratError):
    """A model package that is incomplete, altered, or made for another task."""


class AnnotationError(QuadratError):
    """An annotation file or record that cannot be used as it is."""
