"""What trainings tell of themselves in files, and what the driver makes of it."""

import json

import pytest

from quadrat.training.loop import Event
from quadrat.training.progress import ProgressFile, ProgressReader, shown


def step(done, *, of=100, loss=0.5, kind="step"):
    return Event(kind, done, of, loss)


def test_a_file_is_written_once_in_a_second_and_at_the_end(tmp_path):
    path, now = tmp_path / "progress.json", [10.0]
    tell = ProgressFile(path, clock=lambda: now[0])
    seen = []
    for done in range(1, 101):
        tell(step(done))
        now[0] += 0.03
        seen.append(json.loads(path.read_text())["done"])
    assert seen[0] == 1
    assert seen[-1] == 100
    assert len(set(seen)) == 4, "3 s: at 0, 1 and 2 s, and at the end"


def test_only_steps_are_told(tmp_path):
    tell = ProgressFile(tmp_path / "p.json")
    tell(step(3, kind="checkpoint"))
    tell(step(3, kind="best"))
    assert not (tmp_path / "p.json").exists()


def test_a_file_that_cannot_be_written_stops_no_training(tmp_path):
    (tmp_path / "p.json").mkdir()
    ProgressFile(tmp_path / "p.json")(step(3))


def test_the_driver_adds_up_what_is_new_and_shows_every_loss(tmp_path):
    paths = [tmp_path / f"{i}.json" for i in range(3)]
    reader = ProgressReader(paths)
    assert reader.news() == (0, "loss ")
    paths[0].write_text(json.dumps({"done": 5, "loss": 1.0}))
    assert reader.news() == (5, "loss 1.000")
    assert reader.news()[0] == 0
    paths[2].write_text(json.dumps({"done": 2, "loss": 0.25}))
    paths[1].write_text("{")  # torn, or another program's
    assert reader.news() == (2, "loss 1.000 0.250")
    paths[0].unlink()  # a training began anew: the bar does not go back
    assert reader.news()[0] == 0


class Bar:
    def __init__(self):
        self.done, self.notes = 0, []

    def advance(self, count, *, note):
        self.done += count
        self.notes.append(note)


def test_a_bar_moves_until_the_trainings_are_over_and_forgets_what_was_there(tmp_path):
    path, bar = tmp_path / "p.json", Bar()
    path.write_text(json.dumps({"done": 50, "loss": 9.0}))

    def fail():
        with shown([path], bar):
            assert not path.exists()
            path.write_text(json.dumps({"done": 7, "loss": 0.5}))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (bar.done, bar.notes) == (7, ["loss 0.500"])
