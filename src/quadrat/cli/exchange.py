"""Ways out and in: results of other tools, files for other tools, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from quadrat.cli.options import MppOrPx, above_zero
from quadrat.core.errors import EXIT_OK


def import_(
    objects: Path,
    /,
    *,
    slide: Path,
    out: Path,
    mpp: MppOrPx = None,
    scene: str = "",
    name: str = "",
    classes: Annotated[tuple[str, ...], Parameter(metavar="NAME", consume_multiple=True)] = (),
    point_um: Annotated[float | None, above_zero("--point-um", "um")] = None,
    bad_records: Literal["fail", "skip"] = "fail",
    tissue: Literal["auto", "all"] = "auto",
    overwrite: bool = False,
) -> int:
    """Make results of a slide from objects that another tool found.

    Other commands then read them as quadrat's own. QuPath GeoJSON (detections or
    cells), COCO, label images, tables: all that annotations may be in.

    examples:
      quadrat import cells.geojson --slide a.svs --out stardist
      quadrat import points.csv --slide a.svs --out other --point-um 8
      quadrat import cells.geojson --slide a.svs --out other --classes tumour other

    Args:
        objects: the file of objects, in level-0 px
        slide: the slide's file
        out: folder of the run, with one slide after the other
        mpp: um per level-0 px, instead of what the slide states; px: work in pixels
        scene: which of several pictures in the slide's file
        name: what the results are called, instead of as the slide's file
        classes: all classes in their order, if a file need not have each
        point_um: side of a square to draw around an object that is only a point
        bad_records: what happens to objects that cannot be used
        tissue: what counts as analysed: the tissue that quadrat finds, or the whole
            slide
        overwrite: replace results of the slide
    """
    from quadrat.exchange.importing import ImportOptions, import_objects

    options = ImportOptions(
        mpp=mpp,
        scene=scene,
        name=name,
        classes=classes,
        point_um=point_um,
        bad_records=bad_records,
        tissue=tissue,
        overwrite=overwrite,
    )
    done = import_objects(objects, slide, out, options=options)
    for note in done.summary.notes:
        print(f"note: {note}")
    print(f"{done.count} objects: {done.folder}")
    return EXIT_OK


def export(
    run: Path,
    /,
    *,
    to: Literal["qupath", "csv", "coco", "napari", "anndata", "spatialdata", "omero-csv"],
    slides: Annotated[tuple[str, ...], Parameter(name="--slide", metavar="NAME")] = (),
    out: Path | None = None,
    overwrite: bool = False,
) -> int:
    """Write the objects of a run for another tool.

    examples:
      quadrat export out --to qupath            GeoJSON and a script that loads it
      quadrat export out --to napari --slide a
      quadrat export out --to spatialdata       pip install 'quadrat[spatialdata]'

    Args:
        run: the folder of a run
        to: for which tool
        slides: only these slides, by name
        out: folder to write (RUN/export/TO)
        overwrite: write into a folder that is not empty
    """
    from quadrat.exchange.exporting import export_run

    done = export_run(run, to, folder=out, named=slides, overwrite=overwrite)
    print(f"{done.objects} objects of {done.slides} slides: {done.folder}")
    return EXIT_OK


def figure(
    run: Path,
    slide: str,
    /,
    *,
    out: Path,
    bbox: Annotated[str | None, Parameter(metavar="X0,Y0,X1,Y1")] = None,
    object_id: Annotated[int | None, Parameter(name="--object", metavar="ID")] = None,
    scale_bar: bool = False,
    no_outlines: bool = False,
    dpi: int = 300,
    width_mm: float = 85.0,
    slide_file: Path | None = None,
) -> int:
    """A part of a slide with its objects, for a paper.

    Outlines are lines in PDF and SVG.

    examples:
      quadrat figure out a --bbox 1000,2000,3000,3500 --scale-bar --out f.pdf
      quadrat figure out a --object 17 --dpi 600 --out one.png

    Args:
        run: the folder of a run
        slide: name of a slide with results
        out: the file, .png, .pdf or .svg
        bbox: what to show, in level-0 px
        object_id: show what is around the object with this id
        scale_bar: draw a bar of a round length
        no_outlines: the slide alone
        dpi: pixels of the slide an inch
        width_mm: width of the figure
        slide_file: the slide's file, if it is not where it was
    """
    from quadrat.exchange.figure import FigureOptions, draw_figure, parse_bbox

    options = FigureOptions(
        bbox=None if bbox is None else parse_bbox(bbox),
        object_id=object_id,
        scale_bar=scale_bar,
        outlines=not no_outlines,
        dpi=dpi,
        width_mm=width_mm,
        slide_file=slide_file,
    )
    done = draw_figure(run, slide, out, options=options)
    x0, y0, x1, y1 = done.box
    bar = f", scale bar {done.bar}" if done.bar else ""
    print(f"{out}: x {x0:g} to {x1:g}, y {y0:g} to {y1:g} px, {done.objects} objects{bar}")
    return EXIT_OK
