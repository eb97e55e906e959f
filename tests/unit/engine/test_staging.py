"""Copies of slides on the machine's own disk: one for all who use it, within a bound."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quadrat.core import files
from quadrat.core.errors import DamagedTileError
from quadrat.engine import opened as opened_module
from quadrat.engine.staging import Copy, Stage, clear_stage, staged, use_stage
from quadrat.slides.identity import slide_identity

SIZE = 100_000


@pytest.fixture
def slides(tmp_path):
    """Three files of one size."""
    folder = tmp_path / "far"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.svs").write_bytes(name.encode() * SIZE)
    return folder


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path / "near", limit=2 * SIZE)


def take(stage, path):
    return stage.copy(str(path), slide_identity(str(path)))


def copies(stage):
    return sorted(p.name for place in stage.folder.iterdir() if place.is_dir()
                  for p in place.iterdir())  # fmt: skip


def test_a_copy_has_the_bytes_and_the_name_of_the_slide_and_is_made_once(stage, slides):
    first = take(stage, slides / "a.svs")
    before = os.stat(first.path)
    second = take(stage, slides / "a.svs")
    assert first.path == second.path != str(slides / "a.svs")
    assert Path(first.path).name == "a.svs"
    assert Path(first.path).read_bytes() == (slides / "a.svs").read_bytes()
    assert os.stat(second.path).st_ino == before.st_ino


def test_the_copy_that_was_not_asked_for_the_longest_makes_room(stage, slides):
    for name, age in (("a", 200), ("b", 100)):
        copy = take(stage, slides / f"{name}.svs")
        copy.release()
        os.utime(Path(copy.path).parent, (time.time() - age,) * 2)
    take(stage, slides / "a.svs").release()  # now b is the older one
    take(stage, slides / "c.svs")
    assert copies(stage) == ["a.svs", "c.svs"]


def test_a_copy_in_use_makes_no_room_and_the_slide_is_read_where_it_lies(stage, slides):
    held = [take(stage, slides / f"{name}.svs") for name in "ab"]
    reason = take(stage, slides / "c.svs")
    assert isinstance(reason, str)
    assert "run.stage_gb" in reason
    held[0].release()
    assert isinstance(take(stage, slides / "c.svs"), Copy)
    assert copies(stage) == ["b.svs", "c.svs"]


def test_a_slide_larger_than_the_bound_removes_nothing(stage, slides):
    take(stage, slides / "a.svs").release()
    (slides / "large.svs").write_bytes(b"l" * (2 * SIZE + 1))
    assert isinstance(take(stage, slides / "large.svs"), str)
    assert copies(stage) == ["a.svs"]


def test_a_full_disk_is_said_and_leaves_nothing_half_copied(stage, slides, monkeypatch):
    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.shutil, "copyfile", full)
    assert "No space left" in take(stage, slides / "a.svs")
    assert not [p for p in stage.folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_slide_that_changes_while_it_is_copied_is_no_copy_of_it(stage, slides):
    reason = stage.copy(str(slides / "a.svs"), slide_identity(str(slides / "b.svs")))
    assert "changed" in reason
    assert copies(stage) == []


def test_all_files_of_a_slide_keep_their_places(stage, slides):
    (slides / "m.mrxs").write_text("index")
    (slides / "m").mkdir()
    (slides / "m" / "Data0001.dat").write_bytes(b"0" * 500)
    copy = take(stage, slides / "m.mrxs")
    assert (Path(copy.path).parent / "m" / "Data0001.dat").stat().st_size == 500
    zarr = slides / "picture.ome.zarr"
    (zarr / "0").mkdir(parents=True)
    (zarr / "0" / "c0").write_bytes(b"1" * 300)
    copy = take(stage, zarr)
    assert (Path(copy.path) / "0" / "c0").read_bytes() == b"1" * 300


HOLDER = """
import sys, time
from pathlib import Path
from quadrat.engine.staging import Stage
from quadrat.slides.identity import slide_identity
copy = Stage(Path(sys.argv[1]), int(sys.argv[2])).copy(sys.argv[3], slide_identity(sys.argv[3]))
print(copy.path, flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_gives_its_copy_back(stage, slides):
    words = [sys.executable, "-c", HOLDER, str(stage.folder), str(SIZE), str(slides / "a.svs")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert "a.svs" in other.stdout.readline()
        small = Stage(stage.folder, SIZE)
        assert isinstance(take(small, slides / "b.svs"), str)
        small.clear()
        assert copies(stage) == ["a.svs"]
        other.kill()
        other.wait()
    assert isinstance(take(small, slides / "b.svs"), Copy)


def test_several_processes_at_once_make_one_copy(stage, slides):
    words = [sys.executable, "-c", HOLDER.replace("time.sleep(60)", ""), str(stage.folder),
             str(2 * SIZE), str(slides / "a.svs")]  # fmt: skip
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate()[0] for process in running}
    assert len(said) == 1
    assert copies(stage) == ["a.svs"]


def test_without_a_bound_nothing_is_copied_and_what_cannot_be_is_said(
    slides, monkeypatch, tmp_path
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path, said = str(slides / "a.svs"), []
    use_stage(0)
    assert staged(path, slide_identity(path)) is None
    try:
        use_stage(1e-9, lambda *words: said.append(words))
        assert staged(path, slide_identity(path)) is None
        assert [name for name, _ in said] == [path]
        use_stage(1)
        copy = staged(path, slide_identity(path))
        assert copy.path.startswith(str(tmp_path))
        copy.release()
        clear_stage()
        assert not Path(copy.path).exists()
    finally:
        use_stage(0)


def test_an_error_names_the_slide_and_not_its_copy(slides, stage, tiny):
    found = opened_module.Opened(tiny.work())
    found._copy = take(stage, slides / "a.svs")
    error = DamagedTileError(f"{found._copy.path}: a tile is damaged", level=0, box=(0, 0, 1, 1))
    found.name_the_slide(error)
    assert str(error).startswith(tiny.work().ref.path)
    assert error.box == (0, 0, 1, 1)
