"""What a run's folder holds: results, failures, the slides' files, the models' cards."""

import json

import pytest
from PIL import Image

from helpers import shown
from quadrat.core.errors import ConfigError, SlideError
from quadrat.pages.folder import card_of, read_run


@pytest.fixture
def out(tmp_path):
    return shown.make_run(tmp_path, ("one", "gone"), objects=10)


def test_slides_with_results_know_their_files_and_those_without_say_why(out):
    run = read_run(out)
    assert list(run.slides) == ["gone", "one"]
    with run.slides["one"].open() as slide:
        assert slide.levels[0].width == shown.WIDTH
    (lost,) = run.lost
    assert (lost.slide, lost.stage, lost.remedy) == ("failed", "open", "fetch it again")


def test_a_file_that_is_gone_is_named_and_found_in_another_folder(out, tmp_path):
    with pytest.raises(SlideError, match=r"its file is gone: .*1\.png; name its folder"):
        read_run(out).slides["gone"].open()
    shown.write_slide(tmp_path / "elsewhere" / "1.png", shown.planted(10, 1))
    with read_run(out, slides=tmp_path / "elsewhere").slides["gone"].open() as slide:
        assert slide.path == str(tmp_path / "elsewhere" / "1.png")


def test_a_file_that_shows_something_else_is_refused(out, tmp_path):
    Image.new("RGB", (500, 600)).save(tmp_path / "slides" / "0.png")
    with pytest.raises(SlideError, match="500 x 600 px, but 800 x 600 px were analysed"):
        read_run(out).slides["one"].open()


def test_results_that_nobody_noted_a_file_for_are_shown_without_one(out):
    for path in (out / "run" / "asked").iterdir():
        path.unlink()
    with pytest.raises(SlideError, match="nobody noted where its file lies"):
        read_run(out).slides["one"].open()


def test_a_copy_of_results_alone_finds_slides_that_are_called_like_it(out, tmp_path):
    for path in (out / "run" / "asked").iterdir():
        path.unlink()
    shown.write_slide(tmp_path / "elsewhere" / "one.png", shown.planted(10, 0))
    run = read_run(out, slides=tmp_path / "elsewhere")
    with run.slides["one"].open() as slide:
        assert slide.path == str(tmp_path / "elsewhere" / "one.png")
    assert run.slides["gone"].ref is None
    shown.write_slide(tmp_path / "elsewhere" / "one.tif", shown.planted(10, 0))
    assert read_run(out, slides=tmp_path / "elsewhere").slides["one"].ref is None  # which of both?


def test_a_summary_that_cannot_be_read_counts_as_lost(out):
    (out / "results" / "one" / "summary.json").write_text("{}")
    run = read_run(out)
    assert list(run.slides) == ["gone"]
    assert [one.slide for one in run.lost] == ["failed", "one"]
    assert "cannot be read" in run.lost[1].reason


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no results"):
        read_run(tmp_path)


def test_a_folder_of_slides_that_is_none_is_refused(out, tmp_path):
    with pytest.raises(ConfigError, match="which is no folder"):
        read_run(out, slides=tmp_path / "nowhere")


def test_the_card_is_that_of_the_same_weights(out):
    assert card_of(read_run(out), "0" * 64) is None
    (out / "package").mkdir()
    card = {"schema": 1, "weights_sha256": "0" * 64, "limits": "few"}
    (out / "package" / "card.json").write_text(json.dumps(card))
    assert card_of(read_run(out), "0" * 64) == (out / "package", card)
    assert card_of(read_run(out), "1" * 64) is None
