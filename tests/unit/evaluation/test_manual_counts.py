"""Tables of counts that people made."""

import pytest

from quadrat.core.errors import ConfigError
from quadrat.evaluation.manual_counts import of_slide, read_manual


def read(tmp_path, text, classes=("a", "b")):
    path = tmp_path / "manual.csv"
    path.write_text(text, encoding="utf-8")
    return read_manual(path, classes)


def test_classes_are_columns_or_rows_and_empty_cells_were_not_counted(tmp_path):
    wide = read(tmp_path, "Slide;count;a;count_b;who\ns1;7;3;4;me\ns2;9,5;;1;me\n")
    assert wide.counts == {"s1": {"all": 7, "a": 3, "b": 4}, "s2": {"all": 9.5, "b": 1}}
    assert wide.unused == ("who",)
    long = read(tmp_path, "slide,class,count\ns1,a,3\ns1,all,7\ns2,b,\n")
    assert long.counts == {"s1": {"a": 3, "all": 7}, "s2": {}}


def test_a_slide_is_found_by_the_name_of_its_results_or_of_its_file(tmp_path):
    manual = read(tmp_path, "slide,count\nx/s1.svs,7\ns2,8\n")
    assert of_slide(manual, "s1") == {"all": 7}
    assert of_slide(manual, "s2") == {"all": 8}
    assert of_slide(manual, "s3") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,count\ns,1\n", r"no column 'slide' \(it has name, count\); the columns are slide"),
        ("slide,cells\ns,1\n", r"no column of counts \(it has slide, cells\); name one 'count'"),
        ("slide,count\ns,many\n", "line 2: all is 'many'; it must be a number"),
        ("slide,count\ns,-1\n", "line 2: all is '-1'"),
        ("slide,count\ns,1\ns,2\n", "line 3: a second count of all on the slide 's'"),
        ("slide,class,count\ns,aa,1\n", r"no class 'aa' \(it has a, b\); did you mean 'a'"),
        ("slide,count\ns\n", "line 2: 1 cells, but the header has 2"),
        ("", "the file is empty"),
    ],
)
def test_what_is_wrong_with_a_table_is_named_with_its_line_and_columns(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told):
        read(tmp_path, text)


def test_a_table_that_is_missing_or_no_utf8_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        read_manual(tmp_path / "none.csv", ["a"])
    (tmp_path / "x.csv").write_bytes("slide,count\nä,1\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        read_manual(tmp_path / "x.csv", ["a"])
