"""What of two files differs."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quadrat.engine.unlike import unlike


@pytest.mark.parametrize(
    ("name", "one", "other", "what"),
    [
        ("a.json", b'{"x": 1, "y": 2}', b'{"x": 1, "y": 3}', "keys y (first at byte 14; 16 bytes)"),
        ("a.csv", b"h\n1\n2\n", b"h\n1\n3\n4\n", "lines 3, 4 (first at byte 4; 6 and 8 bytes)"),
        ("a.png", b"abc", b"abx", "bytes differ (first at byte 2; 3 bytes)"),
        ("a.png", b"abc", b"ab", "bytes differ (first at byte 2; 3 and 2 bytes)"),
        ("a.json", b"[1]", b"[2]", "bytes differ (first at byte 1; 3 bytes)"),
    ],
)
def test_the_part_that_differs_is_named(tmp_path, name, one, other, what):
    paths = [tmp_path / folder / name for folder in ("1", "2")]
    for path, content in zip(paths, (one, other), strict=True):
        path.parent.mkdir()
        path.write_bytes(content)
    assert unlike(*paths) == what


def test_columns_of_tables_are_named_and_damage_is_said(tmp_path):
    one, other = tmp_path / "1.parquet", tmp_path / "2.parquet"
    pq.write_table(pa.table({"x": [1], "y": [2]}), one)
    pq.write_table(pa.table({"x": [1], "y": [3]}), other)
    assert unlike(one, other).startswith("columns y (")
    pq.write_table(pa.table({"x": [1, 2], "y": [3, 4]}), other)
    assert unlike(one, other).startswith("1 and 2 rows (")
    other.write_bytes(b"no table")
    assert unlike(one, other).startswith("cannot be read (")


def test_a_missing_file_is_said(tmp_path):
    (tmp_path / "a").write_text("")
    assert unlike(tmp_path / "a", tmp_path / "b") == "is missing now"
    assert unlike(tmp_path / "b", tmp_path / "a") == "is missing then"
