"""Wrong input: a slide that cannot be read is a recorded failure, wrong usage is refused before
anything is written."""

import json
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from PIL import Image

from helpers.runs import contents, difference, journal, lines_of, quadrat, table, write_pipeline
from quadrat.cli.main import build_app

COMMANDS = [name for name in build_app() if not name.startswith("-")]
NO_PICTURES = ("--set", "outputs.overlay=false")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(120, 220, (700, 600, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def bad(lab, pixels, tmp_path_factory):
    """Files that are no usable slides, by what is wrong; and words that must stand in
    the reason.
    """
    folder = tmp_path_factory.mktemp("bad")
    whole = lab.slides[0].read_bytes()
    (folder / "empty.svs").touch()
    (folder / "truncated.tiff").write_bytes(whole[: len(whole) // 2])
    (folder / "cut_by_a_little.tiff").write_bytes(whole[:-5000])
    (folder / "text.svs").write_text("this is not a slide\n" * 40)
    (folder / "folder").mkdir()
    (folder / "folder" / "notes.txt").write_text("no slide either")
    (folder / "empty_folder").mkdir()
    Image.fromarray(pixels).save(folder / "picture.png")
    tifffile.imwrite(folder / "plain.tiff", pixels, photometric="rgb")
    Image.fromarray(np.full((900, 900, 3), 255, np.uint8)).save(folder / "glass.png")
    (folder / "noise.ndpi").write_bytes(np.random.default_rng(1).bytes(5000))
    return {
        folder / "missing.svs": "missing.svs",
        folder / "empty.svs": "empty",
        folder / "truncated.tiff": "truncated",
        folder / "cut_by_a_little.tiff": "truncated",
        folder / "text.svs": "text.svs",
        folder / "folder": "folder",
        folder / "empty_folder": "folder",
        folder / "picture.png": "mpp",
        folder / "plain.tiff": "mpp",
        folder / "noise.ndpi": "noise.ndpi",
    }


def assert_a_sentence(text):
    assert text
    assert text == text.strip()
    assert "\n" not in text
    assert "Traceback" not in text
    assert "Error(" not in text
    assert len(text) < 400


def test_bad_slides_are_recorded_with_a_reason_and_the_good_one_is_finished(
    lab, bad, reference, tmp_path
):
    files = [*bad, lab.slides[0]]
    done = quadrat("run", lab.pipeline("semantic"), *files, "--out", tmp_path)
    assert done.code == 1
    assert "Traceback" not in done.err
    rows = table(tmp_path / "results" / "summary.csv")
    names = [path.name if path.is_dir() else path.stem for path in files]
    assert [row["slide"] for row in rows] == sorted(names)
    rows = [{row["slide"]: row for row in rows}[name] for name in names]
    assert rows[-1]["status"] == "done"
    failures = {
        line["slide"]: line["reason"] for line in lines_of(tmp_path / "run" / "failures.jsonl")
    }
    assert list(failures) == sorted(names[:-1])
    for row, word in zip(rows[:-1], bad.values(), strict=True):
        assert row["status"] == "failed"
        assert_a_sentence(row["reason"])
        assert_a_sentence(failures[row["slide"]])
        assert word in row["reason"], row
        assert row["mpp"] == row["tissue_mm2"] == ""
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["oblong", "summary.csv"]
    assert (
        difference(
            contents(tmp_path / "results" / "oblong"), contents(reference("semantic") / "oblong")
        )
        == []
    )


def test_no_path_of_the_machine_is_told_in_the_summary_of_a_failure(lab, bad, tmp_path):
    done = quadrat("run", lab.pipeline("semantic"), *bad, "--out", tmp_path)
    assert done.code == 1
    assert str(next(iter(bad)).parent) not in (tmp_path / "results" / "summary.csv").read_text()


def test_a_slide_that_was_mended_is_done_in_the_next_run(lab, tmp_path):
    slide = tmp_path / "late.tiff"
    words = ("run", lab.pipeline("semantic"), slide, "--out", tmp_path / "out", *NO_PICTURES)
    assert quadrat(*words).code == 1
    shutil.copyfile(lab.slides[0], slide)
    assert quadrat(*words).code == 0
    assert lines_of(tmp_path / "out" / "run" / "failures.jsonl") == []
    assert table(tmp_path / "out" / "results" / "summary.csv")[0]["status"] == "done"


def test_glass_without_tissue_fails_with_advice_and_an_mpp_from_the_command_line_is_used(
    lab, bad, tmp_path
):
    glass = next(iter(bad)).parent / "glass.png"
    words = (
        "run",
        lab.pipeline("semantic"),
        glass,
        "--out",
        tmp_path,
        "--mpp",
        "2.0",
        *NO_PICTURES,
    )
    done = quadrat(*words)
    assert done.code == 1
    assert "nothing to analyse" in done.out
    assert "slide.tissue=all" in done.out
    done = quadrat(*words, "--set", "slide.tissue=all")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "results" / "glass" / "summary.json").read_text())
    assert summary["slide_mpp"] == {"source": "override", "value": 2.0}


def test_a_slide_finer_wanted_than_it_is_fails_with_the_way_to_allow_it(lab, bad, tmp_path):
    picture = next(iter(bad)).parent / "picture.png"
    done = quadrat(
        "run", lab.pipeline("semantic"), picture, "--out", tmp_path, "--mpp", "4.0", *NO_PICTURES
    )
    assert done.code == 1
    assert "allow_upsampling" in done.out


def test_a_slide_given_by_two_dots_has_the_name_of_its_folder_and_harms_no_other(
    lab, tmp_path, monkeypatch
):
    (tmp_path / "case_1" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "case_1" / "below")
    out = tmp_path / "out"
    assert quadrat("predict", lab.pipeline("semantic"), lab.slides[0], "--out", out).code == 0
    before = contents(out / "run" / "work" / "oblong")
    for setting in ("slide.min_tissue=0", "slide.min_tissue=0.5"):
        done = quadrat("run", lab.pipeline("semantic"), "..", "--out", out, "--set", setting)
        assert done.code == 1
        assert "Traceback" not in done.err
        rows = table(out / "results" / "summary.csv")
        assert [(row["slide"], row["status"]) for row in rows] == [
            ("case_1", "failed"),
            ("oblong", "predict"),
        ]
    assert contents(out / "run" / "work" / "oblong") == before


def test_a_run_takes_all_slides_of_a_folder_and_can_be_quiet(lab, reference, tmp_path):
    for slide in lab.slides:
        (tmp_path / "slides" / "below").mkdir(parents=True, exist_ok=True)
        (tmp_path / "slides" / slide.name).symlink_to(slide)
    (tmp_path / "slides" / "notes.txt").touch()
    words = ("run", lab.pipeline("semantic"), tmp_path / "slides", "--out", tmp_path / "out")
    done = quadrat(*words, "-q", "--device", "cpu")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[:2] for line in done.out.splitlines()[1:3]] == [
        ["oblong", "done"],
        ["square", "done"],
    ]
    of_reference = contents(reference("semantic"))
    assert difference(contents(tmp_path / "out" / "results"), of_reference) == []
    assert quadrat(*words).err.startswith(f"{tmp_path / 'slides'}: 2 slides\n")


# What is wrong: the words after `quadrat`, and what the sentence must hold. {files} is the folder
# of the fixture `wrong`.
WRONG = {
    "an unknown pipeline": ("run nuclie {slide}", "did you mean 'nuclei'"),
    "a missing pipeline file": ("run mine.yaml {slide}", "mine.yaml"),
    "an unknown key": ("run {files}/keyed.yaml {slide}", "did you mean 'halo'"),
    "broken YAML": ("run {files}/broken.yaml {slide}", "not valid YAML"),
    "a list as pipeline": ("run {files}/listed.yaml {slide}", "keys and values"),
    "no classes": ("run {files}/unclassed.yaml {slide}", "classes"),
    "an unknown task": ("run {files}/untasked.yaml {slide}", "did you mean 'semantic'"),
    "no package": ("run {good} {slide} --set model.package={files}/nowhere", "quadrat train"),
    "altered weights": ("run {good} {slide} --set model.package={files}/altered", "sha256"),
    "a torn card": ("run {good} {slide} --set model.package={files}/torn", "card.json"),
    "no weights": ("run {good} {slide} --set model.package={files}/hollow", "weights.safetensors"),
    "a card without lattice": (
        "run {good} {slide} --set model.package={files}/specless",
        "card.json",
    ),
    "a package of another task": (
        "run {good} {slide} --set model.package={detection}",
        "detection",
    ),
    "a package with other classes": ("run {files}/other.yaml {slide}", "fat"),
    "two slides of one name": ("run {good} {slide} {files}/elsewhere/oblong.tiff", "'oblong'"),
    "one slide twice": ("run {good} {slide} {slide}", "oblong.tiff is listed twice"),
    "no slide": ("run {good}", "no slide"),
    "slides and a manifest": ("run {good} {slide} --manifest {manifest}", "--manifest"),
    "no such manifest": ("run {good} --manifest {files}/none.csv", "none.csv"),
    "a manifest without the column slide": (
        "run {good} --manifest {files}/unlisted.csv",
        "'slide'",
    ),
    "a manifest without rows": ("run {good} --manifest {files}/headed.csv", "no slide"),
    "a manifest with a worded mpp": ("run {good} --manifest {files}/worded.csv", "'half'"),
    "a setting without a value": ("run {good} {slide} --set run.workers", "section.key=value"),
    "a setting of the wrong kind": ("run {good} {slide} --set run.workers=two", "'two'"),
    "an unknown setting": ("run {good} {slide} --set run.worker=2", "did you mean 'workers'"),
    "an unknown section": ("run {good} {slide} --set runs.workers=2", "did you mean 'run'"),
    "a key below a value": ("run {good} {slide} --set task.name=2", "not a section"),
    "an unknown threshold": ("run {good} {slide} --set thresholds.sede=0.5", "sede"),
    "an unknown cluster": ("run {good} {slide} --cluster ray", "local, serial, srun, slurm"),
    "an unknown device": ("run {good} {slide} --set run.device=tpu9", "tpu9"),
    "no shards a unit": ("run {good} {slide} --set run.shards_per_unit=0", "shards_per_unit"),
    "no slides in flight": ("run {good} {slide} --set run.slides_in_flight=0", "slides_in_flight"),
    "no time at all": ("run {good} {slide} --set run.deadline_s=0", "deadline_s"),
    "a negative mpp": ("run {good} {slide} --mpp -1", "mpp"),
    "an mpp that is no number": ("run {good} {slide} --mpp nan", "mpp"),
    "no training data": ("train {files}/untrained.yaml --set data.manifest=''", "data.manifest"),
    "training data that is missing": (
        "train {files}/untrained.yaml --set data.manifest=none.csv",
        "none.csv",
    ),
    "a lattice that does not fit": ("train {files}/untrained.yaml --set model.core=60", "60"),
    "widths without channels": ("train {files}/untrained.yaml --set model.widths=[]", "widths"),
}


@pytest.fixture(scope="module")
def wrong(lab, tmp_path_factory):
    """A folder of pipelines, packages and manifests of which each has one fault."""
    files, text = tmp_path_factory.mktemp("wrong"), lab.pipeline("semantic").read_text()
    (files / "keyed.yaml").write_text(text.replace("halo:", "hallo:"))
    (files / "broken.yaml").write_text("task: [semantic\n")
    (files / "listed.yaml").write_text("- semantic\n")
    (files / "unclassed.yaml").write_text("task: semantic\nclasses: []\nmodel: {package: x}\n")
    (files / "untasked.yaml").write_text(text.replace("task: semantic", "task: semantics"))
    for name in ("altered", "torn", "hollow", "specless"):
        shutil.copytree(lab.package("semantic"), files / name)
    weights = bytearray((files / "altered" / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (files / "altered" / "weights.safetensors").write_bytes(weights)
    card = (files / "torn" / "card.json").read_text()
    (files / "torn" / "card.json").write_text(card[:100])
    (files / "hollow" / "weights.safetensors").unlink()
    content = json.loads(card)
    del content["spec"]["lattice"]
    (files / "specless" / "card.json").write_text(json.dumps(content))
    classes = [{"name": "stroma"}, {"name": "gland"}, {"name": "fat"}]
    write_pipeline(
        files / "other.yaml", "semantic", package=lab.package("semantic"), classes=classes
    )
    write_pipeline(
        files / "untrained.yaml", "semantic", package=files / "nothing", manifest=lab.manifest
    )
    (files / "elsewhere").mkdir()
    shutil.copyfile(lab.slides[0], files / "elsewhere" / "oblong.tiff")
    (files / "unlisted.csv").write_text("file,mpp\na.svs,0.5\n")
    (files / "headed.csv").write_text("slide,mpp\n")
    (files / "worded.csv").write_text("slide,mpp\na.svs,half\n")
    return files


@pytest.mark.parametrize("what", WRONG)
def test_wrong_usage_ends_with_2_and_one_sentence_and_writes_nothing(
    what, lab, wrong, tmp_path, monkeypatch
):
    words, told = WRONG[what]
    places = {
        "files": wrong,
        "good": lab.pipeline("semantic"),
        "slide": lab.slides[0],
        "manifest": lab.manifest,
        "detection": lab.package("detection"),
    }
    monkeypatch.chdir(tmp_path)
    before = sorted(wrong.rglob("*"))
    done = quadrat(*words.format(**places).split())
    assert done.code == 2, done.err
    assert done.err.startswith("quadrat: ")
    assert done.err.endswith("\n")
    assert_a_sentence(done.err.rstrip("\n"))
    assert told in done.err
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []
    assert sorted(wrong.rglob("*")) == before


def test_a_pipeline_can_be_refused_before_anything_heavy_is_imported(tmp_path):
    command = [sys.executable, "-m", "quadrat.cli.main", "run", "nuclie", "a.svs"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert_a_sentence(done.stderr.rstrip("\n"))
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_damaged_predictions_fail_the_slide_and_name_the_file(lab, tmp_path):
    words = (lab.pipeline("semantic"), lab.slides[0], "--out", tmp_path)
    assert quadrat("predict", *words).code == 0
    shards = [
        p
        for p in (tmp_path / "run" / "work" / "oblong" / "predictions" / "maps" / "c").rglob("*")
        if p.is_file()
    ]
    content = bytearray(shards[-1].read_bytes())
    content[len(content) // 3] ^= 255
    shards[-1].write_bytes(content)
    done = quadrat("run", *words)
    assert done.code == 1
    reason = lines_of(tmp_path / "run" / "failures.jsonl")[0]["reason"]
    assert_a_sentence(reason)
    assert "damaged" in reason
    assert not (tmp_path / "results" / "oblong").exists()
    assert journal(tmp_path, "oblong")


def test_help_prints_examples_and_exit_codes():
    done = quadrat("--help")
    assert done.code == 0
    assert "examples:" in done.out
    assert "exit codes:" in done.out
    assert "research use only" in done.out
    for name in COMMANDS:
        assert re.search(rf"\n  {name}\s", done.out)
    assert quadrat().code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_each_commands_help_prints_examples(command):
    done = quadrat(command, "--help")
    assert done.code == 0
    assert "examples:" in done.out
    assert f"quadrat {command}" in done.out.partition("examples:")[2]


def test_help_comes_without_importing_the_heavy_libraries():
    code = (
        "import sys\n"
        "from quadrat.cli.main import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'dask', 'distributed', 'zarr', 'numba', 'pyarrow'} & "
        "sys.modules.keys()\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 5  # half a second on an idle machine


def test_inspect_tells_of_good_files_and_in_one_sentence_of_bad_ones(lab, bad):
    done = quadrat("inspect", *lab.slides)
    assert done.code == 0
    assert "2048 x 2000 px" in done.out
    assert "0.5000 x 0.5000 um/px" in done.out
    unreadable = [path for path, word in bad.items() if word != "mpp"]
    done = quadrat("inspect", lab.slides[0], *unreadable)
    assert done.code == 1
    assert "Traceback" not in done.out + done.err
    assert done.out.count("cannot be read: ") == len(unreadable)
    assert "2048 x 2000 px" in done.out


def test_inspect_gives_json_a_line_for_good_and_bad_files(lab, bad):
    done = quadrat("inspect", "--json", lab.slides[0], *bad)
    assert done.code == 1
    facts = [json.loads(line) for line in done.out.splitlines()]
    assert [f["path"] for f in facts] == [str(lab.slides[0]), *map(str, bad)]
    assert facts[0]["mpp"] == [0.5, 0.5]
    assert 0 < facts[0]["tissue_mm2"] < facts[0]["area_mm2"]
    for fact, word in zip(facts[1:], bad.values(), strict=True):
        assert_a_sentence(fact["mpp_problem"] if word == "mpp" else fact["error"])
        assert word in (fact["mpp_problem"] if word == "mpp" else fact["error"])
