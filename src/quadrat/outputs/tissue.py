"""tissue.png: what of a slide was analysed, pixel by pixel of the tissue mask, and why the rest was
not.

The picture has one code a pixel (``slides/tissue``: 0 is tissue, 6 tissue that was filled in, the
others say why a pixel is no tissue), and colours for the eye. Where it lies on the slide stands in
its text chunk ``quadrat``, as JSON. Codes and place are read back as they were written.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from quadrat.core.errors import QuadratError
from quadrat.core.files import write_file
from quadrat.core.objects import Frame
from quadrat.core.records import from_json, to_json

TISSUE = "tissue.png"
_KEY = "quadrat"
_NOT_ANALYSED = (236, 236, 236)
_COLOURS = {
    0: (198, 120, 170),
    1: (255, 255, 255),
    2: (190, 190, 190),
    3: (80, 110, 220),
    4: (60, 60, 60),
    5: (225, 215, 160),
    6: (236, 206, 224),
}
"""Of tissue, glass, shadow and dust, pen, dark border, specks, and what was filled in."""


def write_tissue(folder: Path, codes: npt.NDArray[np.uint8], frame: Frame) -> None:
    """Write the codes uint8 (h, w) of a tissue mask, which lies at ``frame``.

    Raises:
        WriteError: it cannot be written.
    """
    image = Image.fromarray(codes)
    palette = [_COLOURS.get(code, _NOT_ANALYSED) for code in range(256)]
    image.putpalette([value for colour in palette for value in colour])
    about = PngInfo()
    about.add_text(_KEY, json.dumps(to_json(frame, unit=frame.unit), sort_keys=True))
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=6, pnginfo=about)
    write_file(folder / TISSUE, stream.getvalue())


def read_tissue(folder: Path) -> tuple[npt.NDArray[np.uint8], Frame] | None:
    """The codes and the place of a tissue mask; None where an older version wrote the results.

    Raises:
        QuadratError: the file is damaged.
    """
    path = folder / TISSUE
    try:
        with Image.open(path) as image:
            codes = np.array(image)
            values = json.loads(image.text[_KEY])  # type: ignore[attr-defined]  # of PNG alone
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, SyntaxError) as error:
        raise QuadratError(
            f"{path} cannot be read as the tissue of a slide ({error}); run the slide again with "
            "--overwrite"
        ) from error
    frame = from_json(Frame, values)
    if codes.dtype != np.uint8 or codes.shape != (frame.height, frame.width):
        raise QuadratError(f"{path}: {codes.shape} px, but it states {frame}")
    return codes, frame
