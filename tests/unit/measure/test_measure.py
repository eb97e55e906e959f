"""``quadrat measure`` on planted fields: every figure against a count by hand or by shapely."""

import json
import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.annotation_files import feature, ring, square
from helpers.measured import (
    mask_frame,
    rows_of,
    table_of,
    value,
    write_asked,
    write_rois,
    write_slide,
    write_yaml,
)
from quadrat.cli.main import main
from quadrat.core.errors import AnnotationError, ConfigError
from quadrat.core.geometry import Box
from quadrat.core.objects import Frame, Polygons
from quadrat.measure import regions
from quadrat.measure.measure import Wanted, measure

MM2 = 0.06
"""Of the whole planted slide."""
PX_MM2 = (0.25 / 1000) ** 2


def called(name, coordinates, of="Tumour", **more):
    made = feature(coordinates, of, **more)
    made["properties"]["name"] = name
    return made


@pytest.fixture
def out(tmp_path):
    """Objects at level-0 x 20, 60, 100 ... and y 20, 60 ...: classes a and b in turns."""
    at = [(r, c) for r in range(10, 400, 20) for c in range(10, 600, 20)]
    write_slide(tmp_path / "out", *table_of(at, [k % 2 for k in range(len(at))]))
    return tmp_path / "out"


def test_a_whole_slide_has_counts_densities_and_areas(out):
    rows = rows_of(out)
    assert value(rows, "count") == "600"
    assert value(rows, "count", of="b") == "300"
    assert value(rows, "per_mm2") == f"{600 / MM2:.3f}"
    assert value(rows, "analysed_mm2", of="") == "0.060000"
    assert value(rows, "area_fraction") == f"{600 * 4e-6 / MM2:.6f}"
    assert {row["region"] for row in rows if row["slide"]} == {"whole slide"}


def test_nested_and_overlapping_regions_have_their_own_rows(out, tmp_path):
    outer, inner = square(0, 0, 400), square(100, 100, 200)
    beside = square(200, 200, 400)
    rois = write_rois(
        tmp_path / "r.geojson",
        called("outer", outer), called("inner", inner, "Necrosis"), called("beside", beside),
    )  # fmt: skip
    rows = rows_of(out, rois=rois)
    assert value(rows, "count", region="outer") == "100"
    assert value(rows, "count", region="inner") == "25"
    assert value(rows, "count", region="beside") == "100"
    assert value(rows, "region_mm2", region="inner", of="") == f"{200 * 200 * PX_MM2:.6f}"
    union = 400 * 400 * 2 - 200 * 200
    assert value(rows, "count", region="outside every region") == str(600 - 100 - 100 + 25)
    rest = value(rows, "analysed_mm2", region="outside every region", of="")
    assert rest == f"{MM2 - union * PX_MM2:.6f}"
    pooled = [r for r in rows if r["slide"] == "" and r["region_class"] == "Tumour" and r["case"]]
    count = next(r for r in pooled if (r["measure"], r["class"]) == ("count", "all"))
    assert (count["value"], count["flags"]) == ("200", "overlapping")


corner = st.tuples(st.integers(-20, 620), st.integers(-20, 420)).map(
    lambda xy: [xy[0] * 2, xy[1] * 2]
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(corner, min_size=3, max_size=7), min_size=1, max_size=3), st.randoms())
def test_any_regions_hold_what_shapely_and_the_mask_say(tmp_path, drawn, random):
    folder = tmp_path / "any"
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng(random.randint(0, 1 << 30))
    place = mask_frame()
    codes = rng.choice([0, 0, 1, 6], (place.height, place.width)).astype(np.uint8)
    at = rng.uniform(0, (400, 600), (50, 2))
    kinds = rng.integers(0, 2, 50)
    write_slide(folder, *table_of(at, kinds), codes=codes)
    shapes = [shapely.make_valid(shapely.Polygon(c)) for c in drawn]
    polygons = [shapely.convex_hull(s) for s in shapes]
    polygons = [p for p in polygons if p.area > 0 and p.intersects(shapely.box(0, 0, 1200, 800))]
    side = place.scale_row
    pixels = shapely.box(
        *(np.array([(c, r, c + 1, r + 1) for r, c in np.argwhere(np.isin(codes, (0, 6)))]) * side).T
    )
    tissue = shapely.union_all(pixels)
    if not polygons or all(shapely.intersection(tissue, p).area == 0 for p in polygons):
        return
    rois = write_rois(
        folder / "r.geojson",
        *(called(f"r{k}", [list(map(list, p.exterior.coords))]) for k, p in enumerate(polygons)),
    )
    rows = rows_of(folder, rois=rois, shapes=False)
    xy = at[:, ::-1] * 2
    for k, polygon in enumerate(polygons):
        mine = shapely.contains_xy(polygon, *xy.T)
        assert value(rows, "count", region=f"r{k}") == str(mine.sum())
        assert value(rows, "count", region=f"r{k}", of="b") == str((mine & (kinds == 1)).sum())
        area = shapely.intersection(tissue, polygon).area * PX_MM2
        found = float(value(rows, "analysed_mm2", region=f"r{k}", of=""))
        assert found == pytest.approx(area, abs=1e-6)
    outside = shapely.area(tissue - shapely.union_all(polygons)) * PX_MM2
    found = float(value(rows, "analysed_mm2", region="outside every region", of=""))
    assert found == pytest.approx(outside, abs=1e-6)


def test_objects_on_a_shared_border_belong_to_one_region(tmp_path):
    on_the_border = [(50.0, 100.0), (100.0, 100.0), (0.0, 100.0), (100.0, 50.0)]
    write_slide(tmp_path, *table_of(on_the_border, [0, 0, 0, 1]))
    rois = write_rois(
        tmp_path / "r.geojson",
        called("left", square(0, 0, 200)), called("right", square(200, 0, 200)),
        called("below", square(0, 200, 200)),
    )  # fmt: skip
    rows = rows_of(tmp_path, rois=rois)
    counts = [value(rows, "count", region=name) for name in ("left", "right", "below")]
    assert counts == ["0", "2", "1"]
    assert value(rows, "count", region="outside every region") == "1"


def test_a_hole_is_outside_and_a_bow_tie_is_both_wings(out, tmp_path):
    holed = [ring(0, 0, 400), ring(100, 100, 200)]
    tie = [[[400, 0], [800, 400], [800, 0], [400, 400], [400, 0]]]
    rois = write_rois(tmp_path / "r.geojson", called("holed", holed), called("tie", tie))
    rows = rows_of(out, rois=rois)
    assert value(rows, "count", region="holed") == "75"
    assert value(rows, "region_mm2", region="holed", of="") == f"{(400**2 - 200**2) * PX_MM2:.6f}"
    assert value(rows, "region_mm2", region="tie", of="") == f"{400 * 400 / 2 * PX_MM2:.6f}"
    assert value(rows, "count", region="tie", key="flags") == "crosses_itself"


def test_a_region_that_touches_itself_is_measured_and_flagged(out, tmp_path):
    touching = [[[0, 0], [200, 0], [200, 200], [400, 200], [400, 400], [200, 400], [200, 200],
                 [0, 200], [0, 0]]]  # fmt: skip
    rows = rows_of(out, rois=write_rois(tmp_path / "r.geojson", called("t", touching)))
    assert value(rows, "count", region="t") == "50"
    assert value(rows, "count", region="t", key="flags") == "touches_itself"


def test_a_region_that_reaches_beyond_the_slide_is_flagged(out, tmp_path):
    rois = write_rois(tmp_path / "r.geojson", called("r", square(-100, -100, 300)))
    rows = rows_of(out, rois=rois)
    assert value(rows, "count", region="r") == "25"
    assert value(rows, "count", region="r", key="flags") == "beyond_slide"
    assert value(rows, "analysed_mm2", region="r", of="") == f"{200 * 200 * PX_MM2:.6f}"


def test_cores_of_a_microarray_have_their_names_and_missing_ones_no_figures(out, tmp_path):
    cores = [
        called(n, square(x, 0, 200), "", kind="tmaCore") for n, x in (("A-1", 0), ("A-2", 400))
    ]
    cores[1]["properties"]["isMissing"] = True
    rows = rows_of(out, rois=write_rois(tmp_path / "r.geojson", *cores))
    assert value(rows, "count", region="A-1") == "25"
    assert value(rows, "count", region="A-2") == ""
    assert value(rows, "count", region="A-2", key="flags") == "missing_core"
    assert value(rows, "count", region="outside every region") == "575"


def test_regions_without_a_name_are_called_by_their_class_and_numbered(out, tmp_path):
    rois = write_rois(
        tmp_path / "r.geojson", feature(square(0, 0, 100)), feature(square(200, 0, 100)),
        feature(square(0, 200, 100), "Stroma"), feature(square(300, 300, 100), ""),
        feature([5, 5], sort="Point"), feature(square(0, 0, 9), kind="detection"),
    )  # fmt: skip
    done = measure(Wanted(out=out, rois=rois, shapes=False))
    regions = [row["region"] for row in rows_of(out, rois=rois, shapes=False) if row["slide"]]
    assert list(dict.fromkeys(regions)) == [
        "whole slide", "Tumor 1", "Tumor 2", "Stroma", "annotation", "outside every region",
    ]  # fmt: skip
    assert any("1 features of the type 'points' left out" in note for note in done.notes)
    assert any("'detection' left out" in note for note in done.notes)


def test_filled_glass_is_reported_apart_and_can_be_left_out(tmp_path):
    codes = np.zeros((10, 15), np.uint8)
    codes[:, 10:] = 6
    write_slide(tmp_path, *table_of([(20, 20), (20, 500), (300, 500)], [0, 0, 1]), codes=codes)
    rows = rows_of(tmp_path)
    assert value(rows, "filled_mm2", of="") == "0.020000"
    assert value(rows, "count_on_filled") == "2"
    assert value(rows, "per_mm2") == f"{3 / 0.06:.3f}"
    bare = rows_of(tmp_path, without_filled=True)
    assert value(bare, "analysed_mm2", of="") == "0.040000"
    assert (value(bare, "count"), value(bare, "per_mm2")) == ("1", "25.000")
    assert value(bare, "filled_mm2", of="") == "0.020000"
    assert value(bare, "count_on_filled") == "2"


def test_without_a_tissue_map_regions_have_counts_and_no_densities(tmp_path):
    write_slide(tmp_path, *table_of([(20, 20)], [0]), codes=False)
    rois = write_rois(tmp_path / "r.geojson", called("r", square(0, 0, 100)))
    rows = rows_of(tmp_path, rois=rois)
    assert value(rows, "per_mm2") == "0.500"
    assert (value(rows, "count", region="r"), value(rows, "per_mm2", region="r")) == ("1", "")
    assert value(rows, "per_mm2", region="r", key="flags") == "no_tissue_map"
    with pytest.raises(ConfigError, match="an older version wrote these results"):
        rows_of(tmp_path, without_filled=True)


@pytest.mark.parametrize("n", [0, 1])
def test_no_object_and_one_object(tmp_path, n):
    write_slide(tmp_path, *table_of([(20, 20)][:n], [0][:n]))
    text = "ratios: {share: a / (a + b)}\ndistances: [{of: a, to: b, within_um: [10]}]\n"
    text += "hotspots: [{of: all, preset: mitoses}]\n"
    rois = write_rois(tmp_path / "r.geojson", called("r", square(0, 0, 100)))
    rows = rows_of(tmp_path, pipeline=write_yaml(tmp_path / "m.yaml", text), rois=rois)
    assert value(rows, "count", region="r") == value(rows, "count") == str(n)
    assert value(rows, "ratio.share", of="") == ("1.000000" if n else "")
    assert value(rows, "ratio.share", of="", key="flags") == "low_n"
    assert (value(rows, "area_um2_mean") == "4.000") if n else True
    assert not [row for row in rows if row["measure"].startswith("nearest")]


def test_ratios_are_pooled_over_regions_slides_and_cases(tmp_path):
    out = tmp_path / "out"
    kinds = {"s1": [0, 0, 1, 1], "s2": [0, 1, 1, 1], "s3": [0, 0, 0, 1], "s4": [1, 1, 1, 1]}
    for name, classes in kinds.items():
        at = [(20 + 40 * k, 20) for k in range(4)]
        write_slide(out, *table_of(at, classes), name=name)
    write_asked(
        out,
        *({"name": n, "path": f"{n}.svs", "case": c} for n, c in zip(kinds, "xxyz", strict=True)),
    )
    yaml = write_yaml(tmp_path / "m.yaml", "ratios: {share: a / (a + b)}\nlow_n: 5\n")
    rows = rows_of(out, pipeline=yaml)
    assert value(rows, "ratio.share", of="", slide="s1") == "0.500000"
    share = [row for row in rows if row["measure"].startswith("ratio.share")]
    cases = {r["case"]: r for r in share if r["slide"] == "" and r["case"]}
    assert {case: r["value"] for case, r in cases.items()} == {
        "x": "0.375000", "y": "0.750000", "z": "0.000000",
    }  # fmt: skip
    assert {case: (r["n"], r["flags"]) for case, r in cases.items()} == {
        "x": ("8", ""), "y": ("4", "low_n"), "z": ("4", "low_n"),
    }  # fmt: skip
    cohort = share[-1]
    assert (cohort["measure"], cohort["value"], cohort["n"]) == (
        "ratio.share_mean",
        "0.375000",
        "3",
    )
    assert float(cohort["low"]) < 0.375 < float(cohort["high"])


def test_distances_bands_and_shapes_of_a_region(tmp_path):
    """a at x 100, b at x 140 and 180 (level 0): 10 and 20 um."""
    write_slide(tmp_path, *table_of([(100, 100), (100, 120), (100, 140)], [0, 1, 1]))
    text = (
        "distances: [{of: a, to: b, within_um: [10, 15]}, {of: b, to: b}]\nbands_um: [0, 10, 30]\n"
    )
    rois = write_rois(tmp_path / "r.geojson", called("r", square(140, 140, 100)))
    rows = rows_of(tmp_path, pipeline=write_yaml(tmp_path / "m.yaml", text), rois=rois)
    assert value(rows, "nearest_um.b_median", of="a") == "10.000"
    assert value(rows, "nearest_um.b_median", of="b") == "10.000"
    assert value(rows, "nearest_um.b_edge_share", of="a") == "0.000000"
    assert value(rows, "within_10_um.b_mean", of="a") == "1.000000"
    assert value(rows, "within_15_um.b_share", of="a") == "1.000000"
    # the region's border is x 140 to 240, y 140 to 240 (35 to 60 um); objects at x 200, 240, 280
    assert value(rows, "count", region="r") == "1"
    assert value(rows, "border_distance_um_median", region="r") == "-10.000"
    assert value(rows, "count_band_0_10_um", region="r") == "1"
    assert value(rows, "count_band_10_30_um", region="r") == "1"
    area = float(value(rows, "analysed_mm2_band_0_10_um", region="r", of=""))
    assert area == pytest.approx((4 * 25 * 10 + math.pi * 100) / 1e6, abs=1e-6)
    assert value(rows, "solidity_mean", region="r", of="a") == "1.000000"
    assert value(rows, "max_diameter_um_mean", region="r", of="a") == f"{2 * math.sqrt(2):.3f}"


def test_neighbours_beyond_the_analysed_area_are_flagged(tmp_path):
    codes = np.ones((10, 15), np.uint8)
    codes[2:4, 2:4] = 0
    write_slide(tmp_path, *table_of([(100, 100), (300, 300)], [0, 1]), codes=codes)
    yaml = write_yaml(tmp_path / "m.yaml", "distances: [{of: a, to: b}]\n")
    rows = rows_of(tmp_path, pipeline=yaml)
    assert value(rows, "nearest_um.b_edge_share", of="a") == "1.000000"
    assert value(rows, "nearest_um.b_median", of="a", key="flags") == "edge_effect"


def test_regions_of_another_run_with_another_mpp_and_lattice(out, tmp_path):
    coarse = Frame(100, 150, 2.0, 8.0, 8.0)
    boxes = np.array([(0, 0, 50, 50), (60, 100, 100, 150)], float)
    table, _ = table_of([(25, 25), (80, 125)], [1, 0])
    more = {"frame": coarse, "names": ("stroma", "tumour"), "task": "semantic"}
    write_slide(tmp_path / "other", table, Polygons.boxes(boxes), codes=False, **more)
    rows = rows_of(out, within=(f"tumour={tmp_path / 'other'}:tumour",))
    assert value(rows, "count", region="tumour") == "100"
    assert value(rows, "region_mm2", region="tumour", of="") == f"{400 * 400 * PX_MM2:.6f}"
    for text, says in (
        (f"t={tmp_path / 'other'}:tumor", "no class 'tumor'.*did you mean 'tumour'"),
        (f"t={out}:a", "whose objects are no regions"),
        ("tumour", "write it as NAME=FOLDER:CLASS"),
        (f"t={tmp_path / 'no'}:tumour", "holds no results"),
    ):
        with pytest.raises(ConfigError, match=says):
            rows_of(out, within=(text,))


def test_regions_of_other_runs_have_names_of_their_own(out, tmp_path):
    more = {"names": ("tumour", "stroma"), "task": "semantic"}
    write_slide(tmp_path / "o", *table_of([(5, 5)], [0]), **more)
    text = f"r={tmp_path / 'o'}:tumour"
    rois = write_rois(tmp_path / "r.geojson", called("r", square(0, 0, 100)))
    for wanted in ({"within": (text, text)}, {"within": (text,), "rois": rois}):
        with pytest.raises(ConfigError, match="another region is called 'r'"):
            rows_of(out, **wanted)


def test_a_bad_file_of_regions_is_found_before_any_slide_is_measured(tmp_path):
    for name in ("one", "two"):
        write_slide(tmp_path / "out", *table_of([(10, 10)], [0]), name=name)
    write_rois(tmp_path / "rois" / "one.geojson", called("r", square(0, 0, 100)))
    write_rois(tmp_path / "rois" / "two.geojson", called("r", [ring(0, 0, 100)[:-1]]))
    heard = []
    with pytest.raises(AnnotationError, match=r"two\.geojson, feature 1: a ring of 4"):
        measure(Wanted(out=tmp_path / "out", rois=tmp_path / "rois"), say=heard.append)
    assert heard == []


def test_a_run_of_another_slide_of_the_same_name_is_refused(out, tmp_path):
    more = {"names": ("tumour", "stroma"), "task": "semantic"}
    write_slide(tmp_path / "o", *table_of([(5, 5)], [0]), frame=Frame(300, 600, 0.5, 2, 2), **more)
    with pytest.raises(ConfigError, match="1200 x 600 px, here 1200 x 800; it is another slide"):
        rows_of(out, within=(f"t={tmp_path / 'o'}:tumour",))


def test_the_covered_share_of_semantic_regions_is_cut_exactly(tmp_path):
    boxes = np.array([(0, 0, 100, 100), (200, 200, 300, 400)], float)
    table, _ = table_of([(50, 50), (250, 300)], [0, 1])
    object.__setattr__(table, "area_px", np.array([100.0 * 100, 100.0 * 200]))
    write_slide(tmp_path, table, Polygons.boxes(boxes), task="semantic")
    rois = write_rois(tmp_path / "r.geojson", called("r", square(100, 100, 400)))
    rows = rows_of(tmp_path, rois=rois)
    share = 100 * 100 / (400 * 400)
    assert value(rows, "area_fraction", region="r", of="a") == f"{share:.6f}"
    cut = (500 - 400) * (500 - 400) / (400 * 400)
    assert value(rows, "area_fraction", region="r", of="b") == f"{cut:.6f}"
    rest = (200 * 200 - 100 * 100) / (1200 * 800 - 400 * 400)
    outside = value(rows, "area_fraction", region="outside every region", of="a")
    assert outside == f"{rest:.6f}"
    with pytest.raises(ConfigError, match="--without-filled is of objects that are counted"):
        rows_of(tmp_path, without_filled=True)


def test_hotspots_are_in_the_table_in_a_file_and_drawn_for_qupath(out, tmp_path):
    yaml = write_yaml(
        tmp_path / "m.yaml", "hotspots: [{of: b, shape: square, mm2: 0.0025, best: 2}]\n"
    )
    rows = rows_of(out, pipeline=yaml, to=tmp_path / "to")
    region = "hotspot b square 0.0025 mm2 1"
    assert value(rows, "count", region=region, of="b") == "15"
    assert value(rows, "analysed_mm2", region=region, of="") == "0.002500"
    assert value(rows, "per_mm2", region=region, of="b") == "6000.000"
    lines = (tmp_path / "to" / "hotspots.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("out,s,s,b,1,square,0.0025,15,6000.000,0.002500,")
    drawn = json.loads((tmp_path / "to" / "hotspots" / "s.geojson").read_text())["features"]
    assert [one["properties"]["name"] for one in drawn] == [region, region[:-1] + "2"]
    outline = shapely.geometry.shape(drawn[0]["geometry"])
    assert outline.area == pytest.approx(200 * 200)


def test_both_tables_hold_the_same_and_come_out_the_same_again(out, tmp_path):
    rois = write_rois(tmp_path / "r.geojson", called("r", square(0, 0, 100)))
    rows = rows_of(out, rois=rois)
    first = [(out / f"measurements.{end}").read_bytes() for end in ("csv", "parquet")]
    table = pq.read_table(out / "measurements.parquet").to_pylist()
    assert len(table) == len(rows)
    for ours, theirs in zip(rows, table, strict=True):
        for name, text in ours.items():
            if name in ("value", "n", "low", "high"):
                assert theirs[name] == (float(text) if text else None)
            else:
                assert theirs[name] == text
    rows_of(out, rois=rois)
    assert [(out / f"measurements.{e}").read_bytes() for e in ("csv", "parquet")] == first


def test_pixel_work_says_px(tmp_path):
    frame = Frame(400, 600, 2.0, 2.0, 2.0, "px")
    write_slide(tmp_path, *table_of([(10, 10)], [0]), frame=frame)
    rows = rows_of(tmp_path)
    assert value(rows, "per_mpx") == f"{1 / 0.96:.3f}"
    assert value(rows, "area_px2_mean", of="a") == "64.000"
    assert not [row for row in rows if "um" in row["measure"].split("_") or "mm2" in row["unit"]]


class TestWrongInput:
    """One sentence each, and no table."""

    def refused(self, out, says, error=ConfigError, **wanted):
        with pytest.raises(error, match=says):
            rows_of(out, **wanted)
        assert not (out / "measurements.csv").exists()

    def test_no_results(self, tmp_path):
        self.refused(tmp_path, "holds no results")

    def test_results_of_another_version(self, out):
        path = out / "results" / "s" / "summary.json"
        values = json.loads(path.read_text())
        del values["frame"]
        path.write_text(json.dumps(values))
        self.refused(out, "another version of quadrat may have written it")

    def test_results_without_objects(self, out):
        (out / "results" / "s" / "objects.parquet").unlink()
        self.refused(out, "so there are no objects")

    def test_a_class_that_the_run_does_not_know(self, out, tmp_path):
        for text, says in (
            ("ratios: {r: a / (a + c)}", r"ratios\.r: .*no class 'c'"),
            ("distances: [{of: a, to: z}]", r"distances\[0\]\.to: the run knows no class 'z'"),
            ("hotspots: [{of: q, preset: mitoses}]", r"hotspots\[0\]\.of: the run knows no"),
        ):
            self.refused(out, says, pipeline=write_yaml(tmp_path / "m.yaml", text))

    def test_a_measurement_file_with_a_wrong_key_or_value(self, out, tmp_path):
        for text, says in (
            ("ratio: {}", "unknown key 'ratio'; did you mean 'ratios'"),
            ("low_n: 0", "low_n is 0; it must be at least 1"),
            ("hotspots: [{of: a, mm2: 2}]", "needs either preset, or both shape and mm2"),
            ("bands_um: [10, 5]", r"bands_um is \[10.0, 5.0\]; it must hold two or more edges"),
        ):
            self.refused(out, says, pipeline=write_yaml(tmp_path / "m.yaml", text))
        self.refused(out, "there is no measurement file", pipeline=tmp_path / "no.yaml")

    def test_regions_of_another_slide_or_another_scale(self, out, tmp_path):
        far = write_rois(tmp_path / "far.geojson", called("r", square(5000, 10, 100)))
        self.refused(
            out, "spans x 5000 to 5100.*the slide s has 1200 x 800 px", AnnotationError, rois=far
        )

    def test_regions_that_meet_no_tissue(self, tmp_path):
        codes = np.ones((10, 15), np.uint8)
        codes[5:, 8:] = 0
        write_slide(tmp_path, *table_of([(300, 500)], [0]), codes=codes)
        rois = write_rois(tmp_path / "r.geojson", called("r", square(10, 10, 100)))
        self.refused(
            tmp_path, "none of its 1 regions meets analysed tissue", AnnotationError, rois=rois
        )

    def test_open_empty_and_unreadable_regions(self, out, tmp_path):
        flat = [[[0, 0], [10, 0], [20, 0], [0, 0]]]
        for name, one, says in (
            (
                "open",
                called("r", [ring(0, 0, 100)[:-1]]),
                "feature 1: a ring of 4 points that is not",
            ),
            ("flat", called("r", flat), "feature 1: a polygon without area"),
            ("line", called("r", [[0, 0], [9, 9]], sort="LineString"), "has no area"),
        ):
            rois = write_rois(tmp_path / f"{name}.geojson", one)
            self.refused(out, says, AnnotationError, rois=rois)
        none = write_rois(tmp_path / "none.geojson")
        self.refused(out, "holds no annotation and no TMA core", AnnotationError, rois=none)

    def test_no_file_of_regions_is_called_as_a_slide(self, out, tmp_path):
        folder = tmp_path / "rois"
        write_rois(folder / "t.geojson", called("r", square(0, 0, 100)))
        self.refused(out, "no file of regions is called as a slide of the run", rois=folder)
        self.refused(out, "there is no such file or folder of regions", rois=tmp_path / "no")


def test_files_of_regions_are_found_by_the_name_of_the_slide(tmp_path):
    out, folder = tmp_path / "out", tmp_path / "rois"
    for name in ("one", "two", "three"):
        write_slide(out, *table_of([(10, 10)], [0]), name=name)
    write_rois(folder / "one.geojson", called("r", square(0, 0, 100)))
    write_rois(folder / "two.svs.geojson", called("r", square(0, 0, 100)))
    write_rois(folder / "other.geojson", called("r", square(0, 0, 100)))
    done = measure(Wanted(out=out, rois=folder, shapes=False))
    assert f"{folder}: no slide of the run for other.geojson; left out" in done.notes
    assert "three: no file of regions; measured as a whole" in done.notes
    rows = rows_of(out, rois=folder, shapes=False)
    assert {row["slide"] for row in rows if row["region"] == "r"} == {"one", "two"}


def test_a_manifest_names_regions_and_cases(out, tmp_path):
    write_rois(tmp_path / "mine.geojson", called("r", square(0, 0, 100)))
    manifest = tmp_path / "slides.csv"
    manifest.write_text("slide,regions,case\ns.svs,mine.geojson,patient 7\n")
    rows = rows_of(out, rois=manifest)
    assert value(rows, "count", region="r", key="case") == "patient 7"


def test_the_command_prints_what_it_did(out, tmp_path, capsys):
    assert main(["measure", str(out), "--no-shapes"]) == 0
    said = capsys.readouterr().out
    assert "s: 600 objects, 0 regions" in said
    assert "1 slides, " in said
    assert main(["measure", str(tmp_path / "no")]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_regions_of_a_slide_of_which_a_part_was_scanned_are_moved(out, tmp_path, monkeypatch):
    """As QuPath counts them, from the corner of the scanned part at x 600, y 400."""
    monkeypatch.setattr(regions, "scanned_part", lambda path: Box(400, 600, 800, 1200))
    rois = write_rois(tmp_path / "r.geojson", called("r", square(0, 0, 200)))
    done = measure(Wanted(out=out, rois=rois, shapes=False))
    assert any("count from the corner of the scanned part" in note for note in done.notes)
    rows = rows_of(out, rois=rois, shapes=False)
    assert value(rows, "count", region="r") == "25"
    assert value(rows, "analysed_mm2", region="r", of="") == f"{200 * 200 * PX_MM2:.6f}"
    monkeypatch.setattr(regions, "scanned_part", lambda path: Box(100, 200, 500, 800))
    both = write_rois(tmp_path / "b.geojson", called("r", square(240, 160, 200)))
    with pytest.raises(AnnotationError, match="set regions_origin in the measurement file"):
        measure(Wanted(out=out, rois=both))
    yaml = write_yaml(tmp_path / "m.yaml", "regions_origin: slide\n")
    assert value(rows_of(out, rois=both, pipeline=yaml), "count", region="r") == "25"


def test_regions_on_a_picture_that_is_shown_turned_are_refused(out, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (80, 60)).save(tmp_path / "s.jpg", exif=exif)
    write_asked(out, {"name": "s", "path": str(tmp_path / "s.jpg")})
    rois = write_rois(tmp_path / "r.geojson", called("r", square(0, 0, 200)))
    with pytest.raises(AnnotationError, match="is shown turned"):
        measure(Wanted(out=out, rois=rois))
