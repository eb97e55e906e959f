"""What ``quadrat inspect`` tells of a slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quadrat.errors import QuadratError
from quadrat.geometry import check_mpp
from quadrat.slides import open_slide
from quadrat.tissue import find_tissue


def describe(path: str) -> dict[str, Any]:
    """Facts of one slide as JSON values; ``mpp_problem`` says why its mpp cannot be used, if so.

    Raises:
        SlideError: the file cannot be read.
    """
    with open_slide(path) as slide:
        info = slide.info
        facts: dict[str, Any] = {
            "path": path,
            "name": slide.name,
            "format": info.format,
            "reader": info.reader,
            "height": info.size[0],
            "width": info.size[1],
            "levels": [list(size) for size in info.level_sizes],
            "downsamples": [round(level.down_row, 4) for level in slide.levels],
            "mpp": list(slide.mpp) if slide.mpp else None,
            "objective": info.objective,
            "associated_images": list(info.associated),
            "bytes": sum(f.stat().st_size for f in _files(Path(path))),
        }
        try:
            mpp = check_mpp(slide.mpp, slide=path)
        except QuadratError as error:
            facts["mpp_problem"] = str(error)
        else:
            facts["tissue_mm2"] = round(find_tissue(slide, slide_mpp=mpp).area_mm2, 4)
            facts["area_mm2"] = round(info.size[0] * info.size[1] * mpp**2 / 1e6, 4)
    return facts


def describe_text(facts: dict[str, Any]) -> str:
    """The same as lines for people."""
    if "error" in facts:
        return f"{facts['path']}\n  cannot be read: {facts['error']}"
    mpp = "none" if facts["mpp"] is None else " x ".join(f"{v:.4f}" for v in facts["mpp"]) + " um/px"
    levels = ", ".join(f"{w}x{h}" for h, w in facts["levels"])
    lines = [
        facts["path"],
        f"  format     {facts['format']} (read by {facts['reader']}), {facts['bytes'] / 2**20:.1f} MiB",
        f"  size       {facts['width']} x {facts['height']} px, levels {levels}",
        f"  mpp        {mpp}" + (f", objective {facts['objective']:g}x" if facts["objective"] else ""),
    ]
    if "tissue_mm2" in facts:
        lines.append(f"  tissue     {facts['tissue_mm2']:.2f} of {facts['area_mm2']:.2f} mm2")
    if "mpp_problem" in facts:
        lines.append(f"  problem    {facts['mpp_problem']}")
    if facts["associated_images"]:
        lines.append(f"  associated {', '.join(facts['associated_images'])} (listed, never copied)")
    return "\n".join(lines)


def _files(path: Path) -> list[Path]:
    return [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
