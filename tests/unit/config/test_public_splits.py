"""The committed split files: no case on two sides, every row filled; and, with the sets at hand,
that the script makes them."""

import csv
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from quadrat.config.manifest import read_manifest

DATA = Path(__file__).parents[3] / "data"
FILES = sorted((DATA / "splits").glob("*.csv"))
COLUMN = {
    "dsb2018": ("fold",),
    "brca_m2c": ("split",),
    "bccd": ("split",),
    "ebhi": ("fold", "split"),
}


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def sets():
    folder = os.environ.get("QUADRAT_DATA")
    if not folder or not all(
        (Path(folder) / p).is_dir()
        for p in ("instances", "detection", "classification_segmentation")
    ):
        pytest.skip("QUADRAT_DATA names no folder with the public sets (data/README.md)")
    return Path(folder)


def test_there_is_a_file_for_each_set():
    assert [p.stem for p in FILES] == sorted(COLUMN)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_no_case_is_on_two_sides_and_no_cell_is_empty(path):
    rows = rows_of(path)
    assert all(all(row.values()) for row in rows)
    assert len({row["image"] for row in rows}) == len(rows)
    for column in COLUMN[path.stem]:
        sides = defaultdict(set)
        for row in rows:
            if row[column] != "left out":
                sides[row["case"]].add(row[column])
        assert all(len(s) == 1 for s in sides.values())


def test_a_patch_left_out_is_of_a_patient_who_is_tested():
    rows = rows_of(DATA / "splits/brca_m2c.csv")
    tested = {row["case"] for row in rows if row["split"] == "test"}
    assert {row["case"] for row in rows if row["split"] == "left out"} == {"TCGA-A7-A13G"} <= tested


def test_tiles_of_one_field_are_of_one_group_and_a_look_has_one_mpp():
    rows = rows_of(DATA / "splits/dsb2018.csv")
    for whole, part in (("field", "case"), ("case", "look"), ("look", "mpp"), ("case", "fold")):
        found = defaultdict(set)
        for row in rows:
            found[row[whole]].add(row[part])
        assert all(len(parts) == 1 for parts in found.values()), (whole, part)


def test_the_script_makes_the_committed_files_again(sets, tmp_path):
    subprocess.run(
        [sys.executable, str(DATA / "make_splits.py"), str(sets), "--out", str(tmp_path)],
        check=True,
    )
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.csv")} == {
        p.name: p.read_bytes() for p in FILES
    }


def test_the_manifests_are_read_and_name_files_that_exist(sets, tmp_path):
    subprocess.run(
        [sys.executable, str(DATA / "make_manifests.py"), str(sets), "--out", str(tmp_path)],
        check=True,
    )
    slides = {p.stem: read_manifest(p) for p in tmp_path.glob("*.csv")}
    assert {name: len(refs) for name, refs in slides.items()} == {
        "dsb2018": 107,
        "dsb2018_by_image": 107,
        "brca_m2c": 59,
        "bccd": 364,
        "ebhi_classes": 277,
        "ebhi_masks": 277,
    }
    for refs in slides.values():
        assert all(Path(ref.path).is_file() and ref.mpp for ref in refs)
        assert all(
            Path(ref.annotation).is_file() and ref.annotated == "all"
            for ref in refs
            if not ref.label
        )
