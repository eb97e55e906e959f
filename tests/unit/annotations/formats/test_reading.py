"""The format of a file is told by its content, and what is of none is refused with the remedy."""

import bz2
import gzip
import json
import lzma

import pytest

from helpers.annotation_files import feature, read, square
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


@pytest.mark.parametrize(
    "content",
    [bz2.compress(b"[]"), lzma.compress(b"[]"), gzip.compress(gzip.compress(b"[]"))],
    ids=["bzip2", "xz", "gzip twice"],
)
def test_a_compressed_file_is_refused_with_the_remedy(tmp_path, content):
    (tmp_path / "a.geojson.gz").write_bytes(content)
    with pytest.raises(AnnotationError, match="unpack it"):
        read(tmp_path / "a.geojson.gz")


VOC = "<annotation><object><name>c</name><bndbox>{}</bndbox></object></annotation>"
SIDES = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
COCO = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "categories": [{"id": 1, "name": "c"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
}


@pytest.mark.parametrize(
    ("text", "sort"),
    [
        (json.dumps([feature(square(0, 0, 9), "c")]), "QuPath GeoJSON"),
        (f"[\n{json.dumps(feature(square(0, 0, 9), 'c'))}\n]\n", "QuPath GeoJSON"),
        (json.dumps(COCO), "COCO"),
        (VOC.format(SIDES), "Pascal VOC"),
        ("x0,y0,x1,y1,class\n0,0,9,9,c\n", "CSV"),
    ],
)
def test_text_that_is_packed_with_gzip_is_read_as_if_it_were_not(tmp_path, text, sort):
    (tmp_path / "a").write_text(text)
    (tmp_path / "a.gz").write_bytes(gzip.compress(text.encode()))
    plain, packed = read(tmp_path / "a"), read(tmp_path / "a.gz")
    assert packed.format == plain.format == sort
    (record,), (same,) = packed.records, plain.records
    assert (record.name, record.kind, record.box) == (same.name, same.kind, same.box)
    assert record.parts[0][0].tolist() == same.parts[0][0].tolist()


def test_a_packed_file_that_was_cut_short_and_a_packed_picture_are_refused(tmp_path):
    whole = gzip.compress(json.dumps([feature(square(i, 0, 9)) for i in range(999)]).encode())
    for content in (whole[:-9], whole[: len(whole) // 2], whole[:200] + b"0" + whole[201:]):
        (tmp_path / "a.geojson.gz").write_bytes(content)
        with pytest.raises(AnnotationError, match=r"a\.geojson\.gz: the gzip is damaged or cut"):
            read(tmp_path / "a.geojson.gz")
    (tmp_path / "a.png.gz").write_bytes(gzip.compress(b"\x89PNG" + b"0" * 99))
    with pytest.raises(AnnotationError, match="a picture or a table packed with gzip; unpack it"):
        read(tmp_path / "a.png.gz")


def test_a_missing_file_and_an_ordinary_folder_are_refused(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read(tmp_path / "none.xml")
    with pytest.raises(AnnotationError, match="no OME-Zarr"):
        read(tmp_path)
