"""A run for a QuPath project: objects as GeoJSON, and a script that loads them with classes and
colours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from quadrat.core.files import copy_file, new_folder, write_file
from quadrat.outputs.geojson import GeoJSONWriter, append_rows
from quadrat.outputs.objects import object_columns, read_rows, row_groups
from quadrat.outputs.results import REGIONAL, SlideResult

SCRIPT = "load_into_qupath.groovy"
_GROOVY = """\
// Loads the objects of a quadrat run into the open QuPath project (QuPath 0.4 or later).
// Script editor: open this file, where it was written, and press Run.
// Objects that an earlier run of this script has loaded are replaced; all others stay.
import groovy.json.JsonSlurper
import qupath.lib.common.ColorTools
import qupath.lib.io.PathIO
import qupath.lib.objects.classes.PathClass

def folder = new File(FOLDER)
if (args != null && args.size() > 0)
    folder = new File(args[0])
def index = new File(folder, "index.json")
if (!index.exists()) {
    println "quadrat: there is no " + index + "; correct the folder in this script"
    return
}
def about = new JsonSlurper().parse(index, "UTF-8")

def project = getProject()
if (project == null) {
    println "quadrat: open a project first"
    return
}

// the classes, in the colours of the run
def known = new ArrayList(project.getPathClasses())
about.classes.each { one ->
    def made = PathClass.fromString(one.name)
    made.setColor(ColorTools.packRGB(one.color[0], one.color[1], one.color[2]))
    if (!known.contains(made))
        known.add(made)
}
project.setPathClasses(known)

// a slide belongs to the image that is called as its file, or as its results
def loaded = 0
project.getImageList().each { entry ->
    def name = entry.getImageName()
    def names = [name, name.split(" - ")[0]]  // "a.svs - Series 0"
    def slide = about.slides.find { names.contains(it.file) || names.contains(it.name) }
    if (slide == null)
        return
    def data = entry.readImageData()
    def hierarchy = data.getHierarchy()
    def objects = PathIO.readObjects(new File(folder, slide.objects))
    def ids = objects.collect { it.getID() } as Set
    def before = hierarchy.getAllObjects(false).findAll { ids.contains(it.getID()) }
    hierarchy.removeObjects(before, true)
    hierarchy.addObjects(objects)
    entry.saveImageData(data)
    println "quadrat: " + name + ": " + objects.size() + " objects"
    loaded++
}
project.syncChanges()
println "quadrat: " + loaded + " of " + about.slides.size() + " slides loaded; open them again"
"""


def write_qupath(folder: Path, results: Sequence[SlideResult], names: dict[str, str]) -> None:
    """objects/SLIDE.geojson, index.json (classes, and which image each slide is) and the script.

    Raises:
        WriteError: one cannot be written.
    """
    with new_folder(folder / "objects") as staging:
        for result in results:
            _write_objects(staging / f"{result.name}.geojson", result)
    classes = {c.name: list(c.color) for result in results for c in result.classes}
    about = {
        "classes": [{"name": name, "color": color} for name, color in classes.items()],
        "slides": [
            {
                "name": result.name,
                "file": names[result.name],
                "objects": f"objects/{result.name}.geojson",
            }
            for result in results
        ],
    }
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    write_file(folder / "index.json", text)
    place = groovy_text(str(folder.absolute()))
    write_file(folder / SCRIPT, _GROOVY.replace("FOLDER", place))


def groovy_text(text: str) -> str:
    """A string of Groovy without anything that it would replace."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _write_objects(path: Path, result: SlideResult) -> None:
    """objects.geojson of a slide: a copy, or made anew where the run wrote none."""
    source = result.folder / "objects.geojson"
    if source.is_file():
        copy_file(source, path)
        return
    frame, table = result.summary.frame, result.objects
    with GeoJSONWriter(
        path,
        frame=frame,
        classes=result.classes,
        slide=result.name,
        object_type="annotation" if result.summary.task == REGIONAL else "detection",
    ) as writer:
        done = 0
        for group in range(row_groups(table)):
            rows = read_rows(table, [*object_columns(frame), "geometry"], group=group)
            append_rows(writer, rows, frame, first_id=done + 1)
            done += len(rows)
