"""The format of a file is told by its content, and what is of none is refused with the remedy."""

import bz2
import gzip
import lzma

import pytest

from helpers.annotation_files import read
from quadrat.core.errors import AnnotationError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", "not well-formed XML"),
        ("<html></html>", "none of the formats that quadrat reads"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation></annotation>', "declares a document type"),
        ("", "the file is empty"),
        ("\0\1\2", "none of the formats"),
        (
            "<annotation>" + "<size><width>inf</width><height>9</height></size></annotation>",
            "a picture of inf x 9 px",
        ),
        ("PK\3\4", r"an archive .* unpack it"),
        ("hello world\n", "neither a header nor points"),
        ('{"a": 1}', "not GeoJSON"),
        ('{"images": [], "annotations": {}}', "no COCO file"),
    ],
)
def test_a_file_of_no_format_is_refused_in_a_sentence(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize(
    "text", ["x,y,class\n1,2,ö\n", '[{"a": "ö"}]', '{"images": [], "categories": [{"name": "ö"}]}']
)
def test_text_of_another_encoding_is_refused_with_the_remedy(tmp_path, text, encoding):
    (tmp_path / "a.txt").write_text(text, encoding=encoding)
    with pytest.raises(AnnotationError, match=r"a\.txt: .*UTF-(16|8) text.*; save it as UTF-8"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "start",
    [
        "<annotation\n verified='yes'>",
        "<!-- by hand -->" * 9999 + "<annotation>",
        "<?xml version='1.0'?><annotation\t>",
    ],
)
def test_the_root_of_an_xml_file_is_found_wherever_it_stands(tmp_path, start):
    (tmp_path / "a.xml").write_text(f"{start}<filename>a.png</filename></annotation>")
    assert read(tmp_path / "a.xml").picture == "a.png"
    (tmp_path / "b.xml").write_text("<annotation/>")
    assert read(tmp_path / "b.xml").format == "Pascal VOC"


@pytest.mark.parametrize("packed", [gzip, bz2, lzma])
def test_a_compressed_file_is_refused_with_the_remedy(tmp_path, packed):
    (tmp_path / "a.geojson.gz").write_bytes(packed.compress(b"[]"))
    with pytest.raises(AnnotationError, match="unpack it"):
        read(tmp_path / "a.geojson.gz")


def test_a_missing_file_and_an_ordinary_folder_are_refused(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read(tmp_path / "none.xml")
    with pytest.raises(AnnotationError, match="no OME-Zarr"):
        read(tmp_path)
