"""What is wrong with the geometry of records."""

import numpy as np

from helpers.annotation_files import square
from quadrat.annotations.faults import geometry_problems
from quadrat.annotations.record import Record


def test_two_regions_of_other_classes_may_share_an_outline_and_two_objects_may_not():
    ring = np.array(square(0, 0, 5)[0], float)

    def codes(*records):
        return [[p.code for p in found] for found in geometry_problems(records, size=None)]

    for kind, want in (("region", [[], []]), ("object", [[], ["duplicate"]])):
        assert codes(Record("1", "a", kind, ((ring,),)), Record("2", "b", kind, ((ring,),))) == want
    assert codes(Record("1", "a", "object", points=np.array([[1.0, 1], [1, 1]]))) == [["duplicate"]]


def test_an_outline_is_the_same_wherever_it_begins_and_whichever_way_it_runs():
    ring, hole = (np.array(square(at, at, side)[0], float) for at, side in ((0, 9), (2, 3)))
    other = np.array(square(20, 0, 5)[0], float)
    turned = np.concatenate([ring[2:], ring[1:3]])
    drawn = [
        ((ring,),),
        ((turned,),),
        ((ring[::-1],),),
        ((ring, hole),),
        ((turned, hole[::-1]),),
        ((ring,), (other,)),
        ((other,), (ring[::-1],)),
    ]
    problems = geometry_problems(
        [Record(str(i), "a", "object", parts) for i, parts in enumerate(drawn)], size=None
    )
    assert [[p.text for p in own] for own in problems] == [
        [], ["the same as 0"], ["the same as 0"], [], ["the same as 3"], [], ["the same as 5"],
    ]  # fmt: skip
