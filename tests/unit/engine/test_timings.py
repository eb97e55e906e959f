"""What slides took, one line each."""

from quadrat.engine.timings import Timing, note_timing, read_timings, spent


def test_the_last_line_of_a_slide_counts_and_torn_lines_do_not(tmp_path):
    first = Timing(slide="a", seconds={"predict": 2.0, "predict: network": 1.5}, time=5.0)
    last = Timing(slide="a", seconds={"predict": 3.0}, time=9.0, tissue_mm2=0.5, peak_mb=700.0)
    old = b'{"slide": "b", "seconds": {"plan": 1.0}}\n'
    for timing in (first, last):
        note_timing(tmp_path, timing)
    with (tmp_path / "run" / "timings.jsonl").open("ab") as stream:
        stream.write(old + b'{"slide": "c", "sec\n[]\n{"slide": "d", "seconds": {"plan": "x"}}\n')
    assert read_timings(tmp_path) == {"a": last, "b": Timing(slide="b", seconds={"plan": 1.0})}


def test_time_is_added_up_by_step_and_by_what_it_went_into():
    one = Timing(
        slide="a",
        seconds={"plan": 1.0, "predict": 6.0, "predict: network": 4.0, "predict: read": 1.0},
    )
    found = spent([one, one])
    assert found.by_step == {"predict": 12.0, "plan": 2.0}
    assert found.by_part == {"network": 8.0, "other": 4.0, "read": 2.0}
    assert one.worker_s == 7.0
