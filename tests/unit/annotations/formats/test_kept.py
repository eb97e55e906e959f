"""A file that serves many slides is parsed once."""

import pytest

from helpers.annotation_files import read
from quadrat.annotations.formats import delimited
from quadrat.core.errors import AnnotationError


def test_a_table_that_serves_many_slides_is_parsed_once_and_again_when_it_has_changed(
    tmp_path, monkeypatch
):
    path, looks = tmp_path / "a.csv", []
    monkeypatch.setattr(delimited, "read_text", lambda path: looks.append(path) or path.read_text())
    path.write_text("slide,x,y,class,label\n" + "".join(f"s{i}.png,{i},2,c,c\n" for i in range(9)))
    assert [read(path, f"s{i}.svs").records[0].points[0, 0] for i in range(9)] == list(range(9))
    assert len(looks) == 1
    assert {delimited.label_of(path, f"s{i}.svs") for i in range(9)} == {"c"}
    assert len(looks) == 2
    path.write_text("slide,x,y,class\nother.png,1,2,c\n")
    with pytest.raises(AnnotationError, match="none of its 1 pictures"):
        read(path, "s1.svs")
