import pytest

from quadrat.config.manifest import (
    SlideRef,
    read_manifest,
    slides_from_paths,
    unique_names,
    with_mpp,
)
from quadrat.core.errors import ConfigError


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "slides.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_slides_without_an_mpp_get_that_of_all():
    refs = [SlideRef("a", "a.svs", mpp=0.25), SlideRef("b", "b.svs")]
    assert [ref.mpp for ref in with_mpp(refs, 0.5)] == [0.25, 0.5]
    assert with_mpp(refs, None) == refs


def test_every_column_arrives_and_paths_are_relative_to_the_manifest(tmp_path):
    path = written(
        tmp_path,
        "slide,annotation,mpp,label,case,split\na/one.tif,a/one.geojson,0.25,tumour,7,train\n "
        "two.svs , , , , , \n",
    )
    assert read_manifest(path) == [
        SlideRef(
            "one",
            str(tmp_path / "a/one.tif"),
            0.25,
            str(tmp_path / "a/one.geojson"),
            "tumour",
            "7",
            "train",
        ),
        SlideRef("two", str(tmp_path / "two.svs")),
    ]


def test_only_the_column_slide_is_needed_and_absolute_paths_stay(tmp_path):
    assert read_manifest(written(tmp_path, "slide\n/data/x.svs\n")) == [
        SlideRef("x", "/data/x.svs")
    ]


def test_columns_may_stand_in_any_order_and_rows_may_be_short(tmp_path):
    path = written(tmp_path, "split,slide,mpp\nval,x.svs\n\ntest,y.svs,1\n")
    assert [(s.name, s.split, s.mpp) for s in read_manifest(path)] == [
        ("x", "val", None),
        ("y", "test", 1.0),
    ]


def test_where_a_slide_is_annotated_and_its_fold_are_read(tmp_path):
    path = written(tmp_path, "slide,annotated,fold\nx.svs,all,0\ny.svs,ROI,12\nz.svs,,\n")
    assert [(s.annotated, s.fold) for s in read_manifest(path)] == [
        ("all", 0),
        ("ROI", 12),
        ("", None),
    ]


def test_slides_whose_files_are_called_the_same_are_told_apart_by_the_column_name(tmp_path):
    path = written(tmp_path, "slide,name\na/x.svs,a-x\nb/x.svs,\n")
    assert [s.name for s in read_manifest(path)] == ["a-x", "x"]


def test_one_annotation_file_may_serve_many_slides(tmp_path):
    path = written(tmp_path, "slide,annotation\nx.png,coco.json\ny.png,coco.json\n")
    assert {s.annotation for s in read_manifest(path)} == {str(tmp_path / "coco.json")}


def test_a_manifest_saved_by_a_spreadsheet_is_read(tmp_path):
    path = written(tmp_path, "slide,label\r\nx.svs,Größe\r\n", encoding="utf-8-sig")
    assert [(s.name, s.label) for s in read_manifest(path)] == [("x", "Größe")]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_spreadsheet_of_europe_parts_by_semicolons_or_tabs_and_writes_decimal_commas(
    tmp_path, mark
):
    rows = [["Slide", "MPP", "Label"], ["a, b.svs", "0,25", "x, y"], ["c.svs", "0.5", ""]]
    path = written(tmp_path, "\r\n".join(mark.join(row) for row in rows))
    assert [(s.name, s.mpp, s.label) for s in read_manifest(path)] == [
        ("a, b", 0.25, "x, y"),
        ("c", 0.5, ""),
    ]


def test_a_cell_may_be_of_any_length(tmp_path):
    assert (
        len(read_manifest(written(tmp_path, f"slide,label\nx.svs,{'a' * 200_000}\n"))[0].label)
        == 200_000
    )


def test_a_folder_is_called_by_its_whole_name(tmp_path):
    (tmp_path / "case.1").mkdir()
    assert read_manifest(written(tmp_path, "slide\ncase.1\n"))[0].name == "case.1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'slide'.*none"),
        ("path,label\nx,y\n", "no column 'slide'.*path, label"),
        ("slide,lable\nx,y\n", "unknown column 'lable'.*did you mean 'label'"),
        (
            "slide;label\nx;a;b\n",
            "line 2: 3 cells for 2 columns; put a cell that holds a semicolon",
        ),
        ("slide\nx.svs\na\0.svs\n", "line 3: a NUL character"),
        ("slide,mpp\nx.svs,fine\n", "line 2: mpp 'fine'"),
        ('slide,mpp\nx.svs,0.5\ny.svs,"0,5"\n', "line 3: mpp '0,5'"),
        ("slide,mpp\nx.svs,-1\n", "line 2: mpp '-1' must be a number of um/px above 0"),
        ("slide,mpp\nx.svs,nan\n", "line 2: mpp 'nan' must be"),
        ("slide,split\nx.svs,Train\n", "line 2: split 'Train' is not train, val or test"),
        ("slide,fold\nx.svs,0\n\ny.svs,1.5\n", "line 4: fold '1.5' is not a whole number from 0"),
        ("slide,fold\nx.svs,-1\n", "line 2: fold '-1'"),
        ("slide,name\nx.svs,a/b\n", "line 2: the name 'a/b' cannot be a folder's"),
        ("slide,label,label\nx.svs,a,b\n", "the column 'label' stands there twice"),
        ("slide,label\nx.svs,a,b\n", "line 2: 3 cells for 2 columns"),
        ("slide,label\n,y\n", "line 2: the slide is missing"),
        ("slide,label\n", "no slide was given"),
        ("slide\nx.svs\nx.svs\n", "x.svs is listed twice; keep one row"),
        ("slide\na/x.svs\nb/x.tif\n", "two slides are called 'x'"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place_and_the_word(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        read_manifest(written(tmp_path, text))


def test_a_missing_manifest_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no manifest"):
        read_manifest(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("encoding", "words"), [("utf-16", "UTF-16 text"), ("latin-1", "not UTF-8 text")]
)
def test_a_manifest_that_is_not_utf8_is_refused_with_the_remedy(tmp_path, encoding, words):
    with pytest.raises(ConfigError, match=f"{words}.*; save it as UTF-8"):
        read_manifest(written(tmp_path, "slide\nGröße.svs\n", encoding=encoding))


def test_slides_of_the_command_line_share_their_mpp_and_must_differ_in_name():
    assert [(s.name, s.mpp) for s in slides_from_paths(["a/x.svs", "y.tif"], mpp=0.3)] == [
        ("x", 0.3),
        ("y", 0.3),
    ]
    with pytest.raises(ConfigError, match=r"two slides are called 'x' \(a/x\.svs and b/x\.svs\)"):
        slides_from_paths(["a/x.svs", "b/x.svs"], mpp=None)
    with pytest.raises(ConfigError, match="no slide was given"):
        unique_names([])


def test_a_slide_given_as_a_dot_or_two_has_the_name_of_the_folder_that_is_meant(
    tmp_path, monkeypatch
):
    (tmp_path / "case_1" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "case_1" / "below")
    given = ["..", "../", "../../case_1", "./..", "."]
    names = [slides_from_paths([path], mpp=None)[0].name for path in given]
    assert names == ["case_1", "case_1", "case_1", "case_1", "below"]
    manifest = written(tmp_path, "slide\n./case_1/.\ncase_1/below/..//below\n")
    assert [s.name for s in read_manifest(manifest)] == ["case_1", "below"]


@pytest.mark.parametrize(
    "path", ["/", "..svs", "...svs", "a/..svs", "summary.csv.svs", "a.partial.svs", ".a.old.svs"]
)
def test_a_slide_whose_results_could_not_have_a_folder_is_refused(tmp_path, path):
    words = "cannot be the name of their folder; rename the slide, or fill the manifest's column"
    with pytest.raises(ConfigError, match=words):
        slides_from_paths([path], mpp=None)
    with pytest.raises(ConfigError, match=words):
        read_manifest(written(tmp_path, f"slide\n{path}\n"))


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/a", "../run", "a\0b", "summary.csv", "a.partial", ".a.old", ".a"],
)
def test_no_slide_can_be_made_with_a_name_that_is_no_folder(name):
    with pytest.raises(ConfigError, match="cannot be the name of their folder"):
        SlideRef(name, "x.svs")


def test_an_empty_path_is_not_the_working_folder():
    with pytest.raises(ConfigError, match="the path of a slide is empty"):
        slides_from_paths(["a.svs", ""], mpp=None)


def test_a_tilde_is_the_users_home_and_a_slash_behind_a_folder_changes_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.zarr").mkdir()
    assert slides_from_paths(["~/a.svs", f"{tmp_path}/x.zarr/"], mpp=None) == [
        SlideRef("a", f"{tmp_path}/a.svs"),
        SlideRef("x.zarr", f"{tmp_path}/x.zarr/"),
    ]
    row = read_manifest(written(tmp_path, "slide,annotation\n~/a.svs,~/a.geojson\n"))[0]
    assert (row.name, row.path, row.annotation) == (
        "a",
        f"{tmp_path}/a.svs",
        f"{tmp_path}/a.geojson",
    )
    assert slides_from_paths(["~"], mpp=None)[0].name == tmp_path.name
    assert slides_from_paths(["./~"], mpp=None)[0].name == "~"


@pytest.mark.parametrize("column", ["slide", "annotation", "regions"])
def test_a_manifest_from_windows_names_files_with_backslashes(tmp_path, column):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.x").touch()
    row = {"slide": "s.svs"} | {column: "a\\b\\c.x"}
    text = ",".join(row) + "\r\n" + ",".join(row.values()) + "\r\n"
    (ref,) = read_manifest(written(tmp_path, text))
    found = {"slide": ref.path, "annotation": ref.annotation, "regions": ref.regions}[column]
    assert found == str(tmp_path / "a" / "b" / "c.x")


def test_a_backslash_in_a_name_that_exists_is_a_backslash(tmp_path):
    (tmp_path / "a\\b.svs").touch()
    (ref,) = read_manifest(written(tmp_path, "slide\na\\b.svs\n"))
    assert ref.path == str(tmp_path / "a\\b.svs")


@pytest.mark.parametrize("path", ["C:\\slides\\a.svs", "d:\\a.svs", "\\\\server\\share\\a.svs"])
def test_a_windows_drive_or_share_is_refused_with_the_way_out(tmp_path, path):
    with pytest.raises(ConfigError, match=r"line 2: '.*' is a path of a Windows drive or share"):
        read_manifest(written(tmp_path, f"slide\n{path}\n"))
