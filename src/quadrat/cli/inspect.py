"""What ``quadrat inspect`` tells of a slide, in words and in pictures."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from quadrat.core.errors import DamagedTileError, QuadratError, SlideError
from quadrat.core.unit import PX, Mpp, um_or_none
from quadrat.outputs.figures import save_png
from quadrat.slides.opening import open_slide
from quadrat.slides.protocol import Slide
from quadrat.slides.source import believable_mpp
from quadrat.slides.thumbnail import thumbnail, tissue_overlay
from quadrat.slides.tissue.mask import TissueMap, find_tissue


def describe(
    path: str,
    *,
    mpp: Mpp | None = None,
    scene: str = "",
    pictures: Path | None = None,
    taken: Collection[str] = (),
) -> dict[str, Any]:
    """Facts of one slide as JSON values.

    ``mpp_problem`` says why its mpp cannot be used, ``tissue_problem`` why no tissue can be found,
    ``error`` that pixels could not be read, if so. ``mpp`` (um/px) stands in for the file's; "px":
    none is used, areas are megapixels (``area_mpx``), and no tissue is looked for.
    ``scene`` names one of several pictures in the file. ``pictures`` is a folder for a thumbnail
    and a tissue overlay, named after the slide; names in ``taken`` are avoided.

    Raises:
        SlideError: the file cannot be opened.
    """
    with open_slide(path, mpp=um_or_none(mpp), scene=scene) as slide:
        facts = _facts(slide, Path(path)) | {"path": path, "mpp_given": mpp not in (None, PX)}
        tissue = None
        try:
            if mpp == PX:
                facts |= _in_px(facts)
            else:
                tissue = _tissue(slide, facts)
            if pictures is not None:
                facts["pictures"] = _write_pictures(slide, tissue, pictures, taken=taken)
        except DamagedTileError as error:  # the rest of what is known is worth telling all the same
            facts["error"] = str(error)
    return facts


def describe_text(facts: dict[str, Any]) -> str:
    """The same as lines for people."""
    if "format" not in facts:
        return f"{facts['path']}\n  cannot be read: {facts['error']}"
    mpp = "none"
    if "area_mpx" in facts:
        mpp = f"not used, work is in pixels ({facts['area_mpx']:.2f} Mpx)"
    elif facts["mpp"] is not None:
        mpp = " x ".join(f"{v:.4f}" for v in facts["mpp"]) + " um/px (rows x columns)"
    source = f" ({facts['mpp_source']})" if facts["mpp_source"] else ""
    lines = [
        (
            "format",
            f"{facts['format']} (read by {facts['reader']}), {facts['bytes'] / 2**20:.1f} MiB",
        ),
        ("size", f"{facts['width']} x {facts['height']} px (width x height)"),
        ("levels", ", ".join(f"{w} x {h}" for h, w in facts["levels"])),
        ("mpp", mpp + (", as given" if facts["mpp_given"] else source)),
        ("objective", "none stated" if facts["objective"] is None else f"{facts['objective']:g}x"),
    ]
    if facts["bounds"]:
        row0, col0, row1, col1 = facts["bounds"]
        lines.append(
            (
                "bounds",
                f"rows {row0} to {row1}, columns {col0} to {col1} were scanned (not subtracted)",
            )
        )
    if "tissue_mm2" in facts:
        left_out = "; ".join(f"{reason} {mm2:.2f}" for reason, mm2 in facts["excluded_mm2"].items())
        lines.append(
            (
                "tissue",
                f"{facts['tissue_mm2']:.2f} of {facts['area_mm2']:.2f} mm2"
                + (f" ({left_out})" if left_out else "")
                + f"; {facts['tissue_filled_mm2']:.2f} of it are filled gaps and holes",
            )
        )
    if facts["icc_profile"]:
        lines.append(("colours", f"ICC profile {facts['icc_profile']} (listed, not applied)"))
    if facts["associated_images"]:
        lines.append(
            ("associated", f"{', '.join(facts['associated_images'])} (listed, never copied)")
        )
    lines += [("note", note) for note in facts["notes"]]
    lines += [
        ("problem", facts[key])
        for key in ("mpp_problem", "tissue_problem", "error")
        if key in facts
    ]
    lines += [("picture", name) for name in facts.get("pictures", ())]
    return "\n".join([facts["path"], *(f"  {name:<10} {text}" for name, text in lines)])


def _facts(slide: Slide, path: Path) -> dict[str, Any]:
    info = slide.info
    return {
        "name": slide.name,
        "format": info.format,
        "reader": info.reader,
        "height": slide.levels[0].height,
        "width": slide.levels[0].width,
        "levels": [list(level.box.shape) for level in slide.levels],
        "downsamples": [round(level.down_row, 4) for level in slide.levels],
        "mpp": list(slide.mpp) if slide.mpp else None,
        "mpp_source": info.mpp_source,
        "objective": info.objective,
        "bounds": None
        if info.bounds is None
        else [info.bounds.row0, info.bounds.col0, info.bounds.row1, info.bounds.col1],
        "associated_images": list(info.associated),
        "icc_profile": info.icc_profile,
        "notes": list(info.notes),
        "bytes": sum(f.stat().st_size for f in _files(path)),
    }


def _in_px(facts: dict[str, Any]) -> dict[str, Any]:
    """What is otherwise of a slide in pixel work: no scale, and an area in megapixels."""
    area = round(facts["height"] * facts["width"] / 1e6, 6)
    return {"mpp": None, "mpp_source": "", "objective": None, "area_mpx": area}


def _tissue(slide: Slide, facts: dict[str, Any]) -> TissueMap | None:
    """The slide's tissue, and its areas among the facts; None, and the reason there, where there
    can be none."""
    try:
        mpp = believable_mpp(slide)
    except QuadratError as error:
        facts["mpp_problem"] = str(error)
        return None
    facts["area_mm2"] = round(facts["height"] * facts["width"] * mpp**2 / 1e6, 4)
    try:
        tissue = find_tissue(slide, slide_mpp=mpp)
    except DamagedTileError:
        raise
    except SlideError as error:
        facts["tissue_problem"] = str(error)
        return None
    facts["tissue_mm2"] = round(tissue.area_mm2, 4)
    facts["tissue_filled_mm2"] = round(tissue.filled_mm2, 4)
    facts["excluded_mm2"] = {part.reason: round(part.mm2, 4) for part in tissue.excluded}
    return tissue


def _write_pictures(
    slide: Slide, tissue: TissueMap | None, folder: Path, *, taken: Collection[str]
) -> list[str]:
    """Write the thumbnail and, where there is a mask, the overlay as PNG; their paths."""
    picture, frame = thumbnail(slide)
    pictures = {"thumbnail": picture}
    if tissue is not None:
        pictures["tissue"] = tissue_overlay(picture, frame=frame, tissue=tissue)
    stem, number = slide.name, 1
    while str(folder / f"{stem}.thumbnail.png") in taken:
        number += 1
        stem = f"{slide.name}_{number}"
    places = {kind: folder / f"{stem}.{kind}.png" for kind in pictures}
    for kind, place in places.items():
        save_png(pictures[kind], place)
    return [str(place) for place in places.values()]


def _files(path: Path) -> list[Path]:
    return [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
