"""The table that every format becomes."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from helpers.annotation_files import read
from quadrat.annotations.formats.reading import pictures
from quadrat.core.errors import AnnotationError


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ({"slide": [None, "a"]}, "1 rows without a value in the column 'slide'"),
        ({"kind": ["object", None]}, "1 rows without a value in the column 'kind'"),
        (
            {
                "geometry": [
                    shapely.to_wkb(shapely.Point(1, 1)),
                    shapely.to_wkb(shapely.Point(np.nan, 1)),
                ]
            },
            "p 2 of slide a .* finite",
        ),
        ({"geometry": [b"xx", b""]}, "p 1 of slide a makes no sense"),
    ],
)
def test_rows_of_a_parquet_table_that_make_no_sense_are_named(tmp_path, rows, text):
    good = {key: ["x", "x"] for key in ("source", "format", "class")} | {
        "slide": ["a", "a"],
        "place": ["p 1", "p 2"],
        "kind": ["object", "object"],
        "shape": ["point", "point"],
        "crowd": [False, False],
        "geometry": [shapely.to_wkb(shapely.Point(1, 1))] * 2,
    }
    pq.write_table(pa.table(good | rows), tmp_path / "a.parquet")
    with pytest.raises(AnnotationError, match=rf"a\.parquet: {text}"):
        [read(tmp_path / "a.parquet", name) for name in pictures(tmp_path / "a.parquet")]
