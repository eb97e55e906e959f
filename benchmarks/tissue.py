"""Which rule finds tissue best? Quadrat's mask against known ones; the last line is one JSON
object.

All rules get the same overviews of 8 um a pixel and the same cleaning of small pieces and holes, so
that the decision alone is compared, not the settings around it. The cases are those of
`tissue_cases.py`, split "judge": none of them was looked at while the method was adjusted (that was
done on `--split tune`), and the conditions of UNSEEN neither.

  recall    tissue found / tissue             false area  glass taken for tissue / glass
  Dice      2 x common / (found + tissue)     (without tissue there is a false area only)

    QUADRAT_DATA=<folder> python benchmarks/tissue.py [--quick] [--split judge|tune]

Without QUADRAT_DATA only phantoms are judged, and the JSON object says so. CPU seconds are of the
process.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2gray, rgb2hsv
from skimage.filters import threshold_otsu
from skimage.morphology import disk
from tissue_cases import CONDITIONS, MPP, UNSEEN, Case, cases

from quadrat.slides.tissue.overview import HOLE_MAX_MM2, SPECK_MAX_MM2, classify_overview, is_tissue

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
PX_MM2 = (MPP / 1000) ** 2
MAY_TRAIL = 0.02
"""Quadrat's mean Dice may be this much below the best rule of a condition; over all conditions it
must be the best."""


def cleaned(mask: Mask) -> Mask:
    """Without small holes and small pieces, by quadrat's limits."""
    mask = ~_large(~mask, HOLE_MAX_MM2)
    return _large(mask, SPECK_MAX_MM2)


def _large(mask: Mask, mm2: float) -> Mask:
    labels, count = ndimage.label(mask)
    keep = np.bincount(labels.ravel(), minlength=count + 1) * PX_MM2 >= mm2
    keep[0] = False
    return np.asarray(keep[labels])


def quadrat(rgb: Rgb) -> Mask:
    """What quadrat does."""
    return is_tissue(classify_overview(rgb, mpp=MPP))


def otsu_grey(rgb: Rgb) -> Mask:
    """Darker than Otsu's threshold of the grey level, opened and closed (the usual recipe)."""
    grey = rgb2gray(rgb)
    mask = ndimage.binary_opening(grey < threshold_otsu(grey), disk(1))
    return cleaned(ndimage.binary_closing(np.pad(mask, 4, mode="edge"), disk(3))[4:-4, 4:-4])


def saturation(rgb: Rgb) -> Mask:
    """Otsu on HSV saturation after a median blur of 7 px, closed by 4 px: CLAM's rule with use_otsu
    (Lu et al. 2021)."""
    value = ndimage.median_filter((rgb2hsv(rgb)[..., 1] * 255).astype(np.uint8), 7)
    mask = value > threshold_otsu(value) if np.ptp(value) else np.zeros(value.shape, bool)
    return cleaned(
        ndimage.binary_closing(np.pad(mask, 4, mode="edge"), np.ones((4, 4)))[4:-4, 4:-4]
    )


def saturation_fixed(rgb: Rgb) -> Mask:
    """HSV saturation above 8 of 255 after a median blur of 7 px, closed by 4 px: CLAM's default
    rule."""
    mask = ndimage.median_filter((rgb2hsv(rgb)[..., 1] * 255).astype(np.uint8), 7) > 8
    return cleaned(
        ndimage.binary_closing(np.pad(mask, 4, mode="edge"), np.ones((4, 4)))[4:-4, 4:-4]
    )


def otsu_grown(rgb: Rgb) -> Mask:
    """Otsu on grey, small pieces dropped, grown by a disc of 64 um: after TIAToolbox's
    MorphologicalMasker."""
    grey = rgb2gray(rgb)
    mask = _large(grey < threshold_otsu(grey), SPECK_MAX_MM2)
    return cleaned(ndimage.binary_dilation(mask, disk(round(32 / MPP))))


def light(rgb: Rgb) -> Mask:
    """Grey level below 0.9: after the light part of HistoQC's LightDarkModule (without its modules
    against pens)."""
    return cleaned(rgb2gray(rgb) < 0.9)


METHODS: dict[str, Callable[[Rgb], Mask]] = {
    "quadrat": quadrat,
    "Otsu grey": otsu_grey,
    "Otsu saturation": saturation,
    "saturation > 8": saturation_fixed,
    "Otsu grey, grown": otsu_grown,
    "grey < 0.9": light,
}


def measure(case: Case, mask: Mask) -> tuple[float, float, float]:
    """Dice, recall (both nan without tissue) and false area, each 0 to 1."""
    common = int((mask & case.truth).sum())
    false = float(mask[~case.truth].mean())
    if not case.truth.any():
        return float("nan"), float("nan"), false
    return 2 * common / int(mask.sum() + case.truth.sum()), common / int(case.truth.sum()), false


def compare(judged: list[Case]) -> tuple[dict[str, dict[str, list[float]]], dict[str, float]]:
    """For each method and condition the mean Dice, mean recall, least recall, mean and largest
    false area; CPU seconds."""
    table: dict[str, dict[str, list[float]]] = {}
    seconds = {}
    for name, method in METHODS.items():
        start = time.process_time()
        masks = [method(case.rgb) for case in judged]
        seconds[name] = time.process_time() - start
        table[name] = {}
        for condition in CONDITIONS:
            pairs = zip(judged, masks, strict=True)
            rows = np.array(
                [measure(case, mask) for case, mask in pairs if case.condition == condition]
            )
            dice, recall, false = rows.T
            table[name][condition] = [
                float(v)
                for v in (dice.mean(), recall.mean(), recall.min(), false.mean(), false.max())
            ]
    return table, seconds


def main() -> int:
    """Judge every method on every case, print the tables and the JSON line; 1 if quadrat is not the
    best (see MAY_TRAIL)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="four or fewer bases, not ten")
    parser.add_argument("--split", choices=("judge", "tune"), default="judge")
    options = parser.parse_args()
    judged = cases(options.split, quick=options.quick)
    table, seconds = compare(judged)
    for place, figure in enumerate(
        (
            "mean Dice",
            "mean recall of tissue",
            "least recall",
            "mean false area",
            "largest false area",
        )
    ):
        print(f"\n{figure:<24}" + "".join(f"{name:>18}" for name in METHODS))
        for condition in CONDITIONS:
            label = condition + (" *" if condition in UNSEEN else "")
            print(
                f"{label:<24}"
                + "".join(f"{table[name][condition][place]:>18.3f}" for name in METHODS)
            )
    trailing = {
        condition: round(
            max(table[name][condition][0] for name in METHODS) - table["quadrat"][condition][0], 4
        )
        for condition in CONDITIONS
        if any(table[name][condition][0] > table["quadrat"][condition][0] for name in METHODS)
    }
    mean = {
        name: float(np.nanmean([values[0] for values in rows.values()]))
        for name, rows in table.items()
    }
    passed = (
        max(mean, key=lambda name: mean[name]) == "quadrat"
        and max(trailing.values(), default=0.0) <= MAY_TRAIL
    )
    keys = ("dice", "recall", "recall_least", "false", "false_most")
    result = {
        "benchmark": "tissue",
        "split": options.split,
        "cases": len(judged),
        "bases": {
            s: sum(c.source == s for c in judged) // len(CONDITIONS)
            for s in sorted({c.source for c in judged})
        },
        "unseen_conditions": UNSEEN,
        "figures": {
            name: {
                condition: {
                    k: None if np.isnan(v) else round(v, 4)
                    for k, v in zip(keys, values, strict=True)
                }
                for condition, values in rows.items()
            }
            for name, rows in table.items()
        },
        "cpu_ms_per_overview": {
            name: round(1000 * s / len(judged), 1) for name, s in seconds.items()
        },
        "dice_mean": {name: round(value, 4) for name, value in mean.items()},
        "trails_best_dice_by": trailing,
        "pass": passed,
    }
    print(
        f"{'mean Dice, all but none':<24}" + "".join(f"{value:>18.3f}" for value in mean.values())
    )
    print(
        "\n* condition never used for adjusting; quadrat's mean Dice trails the best rule's in: "
        f"{trailing or 'none'}"
    )
    print(json.dumps(result))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
