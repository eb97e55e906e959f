"""Pascal VOC XML."""

import pytest

from helpers.annotation_files import faults, read


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ("", "it has no bndbox"),
        ("<bndbox><xmin>1</xmin></bndbox>", "is not four numbers"),
        (
            "<bndbox><xmin>4</xmin><ymin>4</ymin><xmax>4</xmax><ymax>9</ymax></bndbox>",
            "xmin 4, ymin 4, xmax 4, ymax 9",
        ),
    ],
)
def test_a_bad_voc_object_is_named(tmp_path, box, text):
    (tmp_path / "a.xml").write_text(
        f"<annotation><object><name>x</name>{box}</object></annotation>"
    )
    assert text in faults(read(tmp_path / "a.xml"))["object 1"]
