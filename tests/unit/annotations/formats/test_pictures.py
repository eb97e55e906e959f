"""Which picture the names in a file mean."""

import pytest

from quadrat.annotations.formats.pictures import same_pictures


@pytest.mark.parametrize(
    ("names", "picture", "want"),
    [
        (["a.png", "b.png"], "a.png", ["a.png"]),
        (["C:\\x\\a.png", "b"], "/y/a.png", ["C:\\x\\a.png"]),
        (["a", "b"], "a.svs", ["a"]),
        (["a_0.98", "a_0"], "a_0.98.png", ["a_0.98"]),
        (["a.jpg", "b.jpg"], "a.svs", ["a.jpg"]),
        (["x/a.png", "y/a.png"], "y/a.png", ["y/a.png"]),
        (["x/a.png", "y/a.png"], "a.png", ["x/a.png", "y/a.png"]),
        (["x/a.png", "y/a.png"], "/data/set/y/a.png", ["y/a.png"]),
        (["/data/set/y/a.png", "y/a.png"], "/data/set/y/a.png", ["/data/set/y/a.png"]),
        (["normal_a", "b"], "/data/normal/a.png", ["normal_a"]),
        ([""], "a.png", []),
        (["s.1", "s.2"], "s.png", []),
        (["s.1", "s.2"], "s.1.png", ["s.1"]),
        (["s.1.tif", "s.2.tif"], "s.2.svs", ["s.2.tif"]),
        (["case"], "/data/case.1", []),
        (["x/y/a.png", "b.png", "y/a.png"], "/x/y/a.png", ["x/y/a.png", "y/a.png"]),
    ],
)
def test_the_nearest_file_name_means_the_slide(names, picture, want):
    assert same_pictures(names, picture, called="normal_a") == want
