"""Import cards to begin with, one for each decoder."""

from __future__ import annotations

from quadrat.core.errors import ConfigError
from quadrat.core.text import did_you_mean

HEAD = """\
# An import card: what there is to know of a network that was not trained here (docs/models.md).
# quadrat models import NETWORK --card THIS_FILE --out my_model
decoder: {name}            # how its outputs are read (docs/decoders.md)
classes:                   # in the network's order, background left out
{classes}
mpp: 0.5                   # um/px that it was trained at; px for pictures without a scale
license: unknown           # of the weights
source: not stated         # where it is from
citation: not stated
{window}
core: measure              # what is kept of the window; or px
input:
  color: RGB               # or BGR
  range: 0-1               # or 0-255, before mean and std
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
  layout: NCHW             # or NHWC
"""
TWO = "  - {name: tumour, color: [200, 0, 0]}\n  - {name: other, color: [0, 120, 200]}"
ONE = "  - {name: nucleus, color: [200, 0, 0]}"
ANY = "window: measure            # side of the input in px; or what the file fixes, else chosen"
TILE = "window: 224                # side of the tiles that it was trained on, in px"
LISTED = "window: 512                # side of the input in px"
LOGITS = "activation: logits         # or probabilities, if softmax or sigmoid is inside\n"
EXAMPLES = {
    "classes": (TWO, TILE, LOGITS),
    "argmax": (
        TWO,
        ANY,
        LOGITS + "options:\n  background: 0            # its channel\n"
        "thresholds:\n  min_area_um2: 400.0\n",
    ),
    "distance": (ONE, ANY, LOGITS),
    "boxes": (
        ONE,
        LISTED,
        "outputs: [boxes, scores, labels]\nthresholds:\n  score: 0.5\n  iou: 0.4\n",
    ),
    "masks": (
        ONE,
        LISTED,
        "outputs: [boxes, scores, labels, masks]\nthresholds:\n  score: 0.5\n  iou: 0.4\n",
    ),
    "points": (ONE, ANY, LOGITS + "options:\n  box_um: 8.0              # side of the boxes\n"),
    "hovernet": (
        TWO,
        ANY,
        "outputs:                   # by the file's names or numbers; 0[0:2]: channels of one\n"
        "  np: 0\n  hv: 1\n  type: 2\n" + LOGITS,
    ),
    "stardist": (
        ONE,
        ANY,
        "outputs:                   # by the file's names or numbers; 0[0:1]: channels of one\n"
        "  probability: 0[0:1]\n  rays: 0[1:33]\nactivation: probabilities\n",
    ),
    "cellpose": (
        ONE,
        ANY,
        "outputs:                   # by the file's names or numbers; 0[0:2]: channels of one\n"
        "  flows: 0[0:2]\n  probability: 0[2:3]\n" + LOGITS,
    ),
    "labels": (ONE, LISTED, ""),
}
"""Classes, window and what comes last, by decoder."""


def example_card(decoder: str) -> str:
    """A card to begin with.

    Raises:
        ConfigError: there is no such decoder.
    """
    if decoder not in EXAMPLES:
        listed = f" (known: {', '.join(EXAMPLES)})"
        hint = did_you_mean(decoder, EXAMPLES, otherwise=listed)
        raise ConfigError(f"there is no decoder '{decoder}'{hint}")
    classes, window, tail = EXAMPLES[decoder]
    return HEAD.format(name=decoder, classes=classes, window=window) + tail
