"""Every write, fsync and rename of a run is made to fail: exit code 74, nothing that looks finished
and is not, and the same command run again ends with the same bytes.

What fails is counted in kinds: a call of the operating system and a file, whatever its shard or
temporary name. A march lets the first call of each kind fail once, one run after the other in the
same folder, so that each run goes on from what the failures before it have left. The slow test
lets every call fail by itself in a fresh folder, with one error and the other in turn.
"""

import re
import shutil
from itertools import count
from pathlib import Path

import pytest
import tifffile
from PIL import Image

from helpers.faults import FAULTY, NO_ROOM, REMOVING, WRITING, Killed, disk
from helpers.runs import contents, difference, quadrat, table
from quadrat.phantom import PhantomSpec, write_phantom

FIXED = Path(__file__).parents[1] / "fixed"
TASKS = ("instance", "classification")
QUICK = [pytest.param("instance", marks=pytest.mark.slow), "classification"]
"""One with maps, shards, label images and objects; one with parquet parts and tables of tiles."""
SETTINGS = ("--mpp", "0.5", "--set", "slide.tissue=all", "--set", "outputs.overlay=false")


class Place:
    """Pipelines, packages and two small pictures, and what undisturbed runs make of them."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(FIXED, folder / "fixed")
        spec = PhantomSpec(
            name="field", height=2000, width=2048, seed=5, dominant="tumour", tissue_fraction=0.6
        )
        pixels = tifffile.imread(write_phantom(folder, spec=spec).slide, key=0)
        Image.fromarray(pixels[700:900, 500:1060]).save(folder / "a.png")
        Image.fromarray(pixels[1100:1300, 500:700]).save(folder / "b.png")

    def run(self, task, out, *, slides=("a.png",), more=()):
        pipeline = self.folder / "fixed" / f"{task}.yaml"
        paths = [self.folder / slide for slide in slides]
        return quadrat("run", pipeline, *paths, "--out", out, *SETTINGS, *more)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def undisturbed(place, tmp_path_factory):
    """Of each task the results, the calls that were made for them, and the kinds of these."""
    found = {}
    for task in TASKS:
        out = tmp_path_factory.mktemp("undisturbed") / task
        place.run(
            task, place.folder / "compiled" / task
        )  # a run that takes long writes more lines to its log
        with disk(out) as watched:
            assert place.run(task, out).code == 0
        kinds = [kind(call, out) for call in watched.calls]
        found[task] = contents(out / "results"), watched.calls, kinds
    return found


def kind(call, out):
    """A call and its file; temporary names and numbers of shards do not count."""
    path = re.sub(r"\.\d+\.[0-9a-f]{8}(?=\.partial)", "", str(Path(call.path).relative_to(out)))
    path = re.sub(r"(drivers|workers|asked)/[^/.]+", r"\1/ID", path)
    return call.name, re.sub(r"\d+", "0", path)


def check_failed(done, out, whole):
    """A run that could not write said so, and left nothing that looks finished and is not."""
    assert done.code == 74, done
    assert "Traceback" not in done.err
    assert re.search(r"cannot be (written|removed) \((No space left|Input/output)", done.err), done
    check_nothing_half(out, whole)


def check_nothing_half(out, whole):
    """A slide has all of its results with the right bytes, or none."""
    for slide in {path.split("/")[0] for path in whole} - {"summary.csv"}:
        mine = {path: sha256 for path, sha256 in whole.items() if path.startswith(f"{slide}/")}
        folder = out / "results" / slide
        there = {f"{slide}/{path}": sha256 for path, sha256 in contents(folder).items()}
        assert not there or difference(there, mine) == []


def bury(out):
    """A process that was killed is gone, and its leases are stale; here it lives on."""
    for lease in (out / "run" / "leases").glob("*.lease.*"):
        lease.unlink()


def march(place, task, out, whole, *, error, names=WRITING):
    """Let each kind of call fail once, in run after run, until a run succeeds; the kinds."""
    failed = set()
    out.mkdir()
    while True:
        with disk(out, error=error, names=names, fails=lambda c: kind(c, out) not in failed) as one:
            try:
                done = place.run(task, out)
            except Killed:
                done = None
        if done is None:
            bury(out)
        if one.failed is None:
            assert done.code == 0, done.err
            return failed
        failed.add(kind(one.failed, out))
        if done is None:
            check_nothing_half(out, whole)
        else:
            check_failed(done, out, whole)


def fails_once(place, task, out, whole, **fault):
    """A run with one failing call in a fresh folder, and the same command again; False if the run
    made no such call."""
    with disk(out, **fault) as watched:
        done = place.run(task, out)
    if watched.failed is None:
        return False
    check_failed(done, out, whole)
    assert place.run(task, out).code == 0
    assert difference(contents(out / "results"), whole) == []
    return True


@pytest.mark.parametrize("task", QUICK)
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(NO_ROOM, id="full"),
        pytest.param(FAULTY, id="faulty", marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_write_fails_once_and_the_run_ends_with_the_same_bytes(
    place, undisturbed, tmp_path, task, error
):
    whole, _, kinds = undisturbed[task]
    failed = march(place, task, tmp_path / "out", whole, error=error)
    assert difference(contents(tmp_path / "out" / "results"), whole) == []
    assert len(failed) > 50
    missed = sorted(set(kinds) - failed)
    assert len(missed) <= 6, "made by the first run only, or by a run that does the whole slide"
    for number, one in enumerate(missed):
        out = tmp_path / str(number)
        assert fails_once(
            place, task, out, whole, error=error, fails=lambda c, o=out, k=one: kind(c, o) == k
        )


@pytest.mark.parametrize("task", QUICK)
def test_a_run_that_is_killed_at_every_kind_of_call_ends_with_the_same_bytes(
    place, undisturbed, tmp_path, task
):
    whole, out = undisturbed[task][0], tmp_path / "out"
    failed = march(place, task, out, whole, error=Killed(), names=(*WRITING, *REMOVING))
    assert len(failed) > 50
    assert difference(contents(out / "results"), whole) == []
    left = [path.name for path in out.rglob("*") if path.name.endswith((".partial", ".old"))]
    assert left == []
    assert list((out / "run" / "work").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("task", TASKS)
def test_every_single_write_fails_and_the_run_ends_with_the_same_bytes(
    place, undisturbed, tmp_path, task
):
    whole, calls, _ = undisturbed[task]
    out = tmp_path / "out"
    for at in count():
        error = (NO_ROOM, FAULTY)[at % 2]
        if not fails_once(place, task, out, whole, at=at, error=error):
            break
        shutil.rmtree(out)
    assert at >= len(calls) - 5, "a slow run writes a few lines more to its log"


@pytest.mark.parametrize("ending", ["results/a", "a/journal.jsonl"])
def test_a_slide_that_cannot_be_committed_or_recorded_does_not_stop_the_others(
    place, undisturbed, tmp_path, ending
):
    slides, out = ("a.png", "b.png"), tmp_path / "out"
    both = tmp_path / "both"
    assert place.run("classification", both, slides=slides).code == 0
    whole = contents(both / "results")

    def fails(call):
        return call.name in ("rename", "fsync") and (call.target or call.path).endswith(ending)

    with disk(out, error=FAULTY, fails=fails) as watched:
        done = place.run("classification", out, slides=slides)
    assert watched.failed is not None
    check_failed(done, out, whole)
    assert "a: failed in" in done.err
    rows = {row["slide"]: row for row in table(out / "results" / "summary.csv")}
    assert rows["a"]["status"] == "failed"
    assert "cannot be written (Input/output error)" in rows["a"]["reason"]
    assert rows["b"]["status"] == "done"
    assert not (out / "results" / "a").exists()
    assert (out / "results" / "b" / "summary.json").exists()
    assert place.run("classification", out, slides=slides).code == 0
    assert difference(contents(out / "results"), whole) == []


def test_results_are_on_the_disk_before_the_journal_that_vouches_for_them_goes(undisturbed):
    for _, calls, _ in undisturbed.values():
        waiting, committed, dropped = set(), False, False
        for call in calls:
            folder = str(Path(call.path).parent)
            if call.name == "rename" and call.target.endswith("/results/a"):
                assert not [path for path in waiting if path.startswith(call.path)]
                committed, folder = True, str(Path(call.target).parent)
            if call.name == "rename" and call.path.endswith("/run/work/a"):
                assert committed
                assert not [path for path in waiting if "/results" in path]
                dropped = True
            if call.name == "fsync":
                waiting.discard(call.path)
            else:
                waiting.add(call.path if call.name == "write" else folder)
        assert dropped


def test_results_that_are_replaced_are_the_old_or_the_new_ones_whenever_the_run_is_killed(
    place, undisturbed, tmp_path
):
    out = tmp_path / "out"
    folder, twin = out / "results" / "a", out / "results" / ".a.old"

    def run(*more):
        return place.run("classification", out, more=(*more, "--overwrite"))

    def first():
        """Results of another setting."""
        assert run("--set", "slide.min_tissue=0.2").code == 0
        return contents(folder)

    old = first()
    with disk(out) as watched:
        assert run().code == 0
    new = contents(folder)
    assert difference(old, new)
    commit = [at for at, c in enumerate(watched.calls) if str(twin) in (c.path, c.target)]
    found = []
    for at in range(commit[0] - 9, commit[-1] + 2):  # the record of what is asked is there already
        assert first() == old
        with disk(out, at=at, error=Killed()), pytest.raises(Killed):
            run()
        bury(out)
        found.append(contents(folder) or contents(twin))
        assert found[-1] in (old, new)
        assert run().code == 0
        assert contents(folder) == new
        assert sorted(path.name for path in (out / "results").iterdir()) == ["a", "summary.csv"]
    assert found[0] == old
    assert found[-1] == new
