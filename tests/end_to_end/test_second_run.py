"""What is done is skipped; other settings are refused or, when asked for, stitched again from kept
predictions."""

import json
import shutil

import pytest

from helpers.runs import contents, difference, journal, log_lines, of_stage, phases, quadrat, table

KEEP = 'run.keep=["tiles","predictions"]'
OTHER = {
    "instance": "thresholds.min_area_um2=20",
    "detection": "thresholds.score=0.5",
    "semantic": "thresholds.min_area_um2=4000",
}


@pytest.fixture(scope="module")
def kept(lab, tmp_path_factory):
    """Runs of one slide that keep their predictions, made once a task."""
    made = {}

    def _kept(task, into):
        if task not in made:
            made[task] = tmp_path_factory.mktemp("kept") / task
            done = quadrat(
                "run", lab.pipeline(task), lab.slides[0], "--out", made[task], "--set", KEEP
            )
            assert done.code == 0, done.err
        return shutil.copytree(made[task], into)

    return _kept


@pytest.fixture(scope="module")
def fresh(lab, tmp_path_factory):
    """results/ of an undisturbed run with the other threshold."""
    made = {}

    def _fresh(task):
        if task not in made:
            made[task] = tmp_path_factory.mktemp("fresh") / task
            done = quadrat(
                "run", lab.pipeline(task), lab.slides[0], "--out", made[task], "--set", OTHER[task]
            )
            assert done.code == 0, done.err
        return made[task] / "results"

    return _fresh


def run(lab, task, out, *words, command="run"):
    return quadrat(command, lab.pipeline(task), lab.slides[0], "--out", out, "--set", KEEP, *words)


def test_what_is_kept_under_run_is_not_seen_in_the_results(lab, kept, reference, tmp_path):
    out = kept("instance", tmp_path / "out")
    assert (
        difference(contents(out / "results" / "oblong"), contents(reference("instance") / "oblong"))
        == []
    )


def test_a_second_run_skips_what_is_done(lab, kept, tmp_path):
    out = kept("instance", tmp_path / "out")
    before, keys, said = contents(out / "results"), journal(out, "oblong"), len(log_lines(out))
    done = run(lab, "instance", out)
    assert done.code == 0
    assert "finished before" in done.err
    assert "done" in done.out
    assert contents(out / "results") == before
    assert journal(out, "oblong") == keys
    assert not phases(out, since=said)


def test_other_thresholds_are_refused_and_the_results_stay(lab, kept, tmp_path):
    out = kept("instance", tmp_path / "out")
    before = contents(out / "results")
    for command in ("run", "stitch"):
        done = run(lab, "instance", out, "--set", OTHER["instance"], command=command)
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert "--overwrite" in done.err
        assert contents(out / "results") == before


@pytest.mark.parametrize(
    ("task", "command"), [*((task, "run") for task in OTHER), ("instance", "stitch")]
)
def test_other_thresholds_are_stitched_from_kept_predictions_without_inferring(
    task, command, lab, kept, fresh, tmp_path
):
    out = kept(task, tmp_path / "out")
    said, inferred = len(log_lines(out)), of_stage(journal(out, "oblong"), "predict")
    done = run(lab, task, out, "--overwrite", "--set", OTHER[task], command=command)
    assert done.code == 0, done.err
    units = phases(out, since=said)
    assert units["merge"] == 1
    assert units["plan"] == units["tile"] == units["layout"] == units["predict"] == 0
    assert of_stage(journal(out, "oblong"), "predict") == inferred
    assert difference(contents(out / "results"), contents(fresh(task))) == []


def test_going_back_to_the_first_thresholds_gives_the_first_results(lab, kept, fresh, tmp_path):
    out = kept("instance", tmp_path / "out")
    first = contents(out / "results")
    assert run(lab, "instance", out, "--overwrite", "--set", OTHER["instance"]).code == 0
    assert difference(contents(out / "results"), contents(fresh("instance"))) == []
    assert run(lab, "instance", out, "--overwrite").code == 0
    assert difference(contents(out / "results"), first) == []


def test_an_output_that_is_switched_off_does_not_stay_behind_from_the_run_before(
    lab, kept, tmp_path
):
    out = kept("instance", tmp_path / "out")
    before = contents(out / "results")
    done = run(lab, "instance", out, "--overwrite", "--set", "outputs.geojson=false")
    assert done.code == 0, done.err
    after = contents(out / "results")
    assert difference(after, before) == ["oblong/objects.geojson", "oblong/summary.json"]
    assert "oblong/objects.geojson" not in after


def test_kept_predictions_can_be_stitched_again_with_the_image(lab, fresh, tmp_path):
    words = ("--set", "outputs.image=true")
    assert run(lab, "semantic", tmp_path).code == 0
    said = len(log_lines(tmp_path))
    done = run(lab, "semantic", tmp_path, *words, "--overwrite", "--set", OTHER["semantic"])
    assert done.code == 0, done.err
    assert phases(tmp_path, since=said)["predict"] == 0
    counts = "oblong/counts.csv"
    assert contents(tmp_path / "results")[counts] == contents(fresh("semantic"))[counts]


def test_a_run_that_died_while_replacing_results_can_be_run_again(lab, kept, fresh, tmp_path):
    out = kept("instance", tmp_path / "out")
    left = out / "results" / ".oblong.old"
    shutil.move(
        out / "results" / "oblong", left
    )  # between the two renames, the old results stand here
    done = run(lab, "instance", out, "--overwrite", "--set", OTHER["instance"])
    assert done.code == 0, done.err
    shutil.copytree(out / "results" / "oblong", left, dirs_exist_ok=True)
    done = run(lab, "instance", out, "--overwrite")
    assert done.code == 0, done.err
    done = run(lab, "instance", out, "--overwrite", "--set", OTHER["instance"])
    assert difference(contents(out / "results"), contents(fresh("instance"))) == []
    assert not left.exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"fingerprint": 1}'])
def test_results_with_a_damaged_summary_do_not_count_as_finished(text, lab, kept, tmp_path):
    out = kept("semantic", tmp_path / "out")
    before = contents(out / "results")
    (out / "results" / "oblong" / "summary.json").write_text(text)
    done = run(lab, "semantic", out, "--overwrite")
    assert done.code == 0, done.err
    assert "finished before" not in done.err
    assert difference(contents(out / "results"), before) == []


def test_predict_then_run_infers_once_and_tile_then_predict_reads_once(lab, reference, tmp_path):
    for command, stage in (("tile", "tile"), ("predict", "predict"), ("run", "merge")):
        said = len(log_lines(tmp_path))
        done = quadrat(command, lab.pipeline("semantic"), lab.slides[0], "--out", tmp_path)
        assert done.code == 0, done.err
        units = phases(tmp_path, since=said)
        assert units[stage] > 0
        assert sum(units[name] > 0 for name in ("tile", "predict", "merge")) == 1, dict(units)
    assert (
        difference(
            contents(tmp_path / "results" / "oblong"), contents(reference("semantic") / "oblong")
        )
        == []
    )


def test_new_weights_under_the_old_name_are_another_model(lab, kept, tmp_path):
    out = kept("semantic", tmp_path / "out")
    package = shutil.copytree(lab.package("semantic"), tmp_path / "package")
    card = json.loads((package / "card.json").read_text())
    assert card["weights_sha256"]
    from safetensors.numpy import load_file, save_file

    weights = load_file(package / "weights.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 0.25
    save_file(weights, package / "weights.safetensors")
    from helpers.runs import sha256

    card["weights_sha256"] = sha256(package / "weights.safetensors")
    (package / "card.json").write_text(json.dumps(card))
    words = ("--set", f"model.package={package}")
    assert run(lab, "semantic", out, *words).code == 2
    said = len(log_lines(out))
    done = run(lab, "semantic", out, "--overwrite", *words)
    assert done.code == 0, done.err
    assert phases(out, since=said)["predict"] > 0
    assert phases(out, since=said)["tile"] == 0
    assert table(out / "results" / "summary.csv")[0]["status"] == "done"


def test_a_refused_stitch_leaves_the_kept_predictions_alone(lab, kept, tmp_path):
    out = kept("semantic", tmp_path / "out")
    before = contents(out / "run" / "work" / "oblong")
    words = ("--overwrite", "--set", OTHER["semantic"])
    assert (
        run(lab, "semantic", out, *words, "--set", "slide.min_tissue=0.3", command="stitch").code
        == 2
    )
    assert contents(out / "run" / "work" / "oblong") == before
    assert run(lab, "semantic", out, *words, command="stitch").code == 0


def test_a_lost_prediction_shard_is_inferred_again(lab, kept, fresh, tmp_path):
    out = kept("semantic", tmp_path / "out")
    shard = next(
        p
        for p in sorted((out / "run" / "work" / "oblong" / "predictions").rglob("*"))
        if p.is_file() and "c" in p.parts
    )
    shard.unlink()
    said = len(log_lines(out))
    done = run(lab, "semantic", out, "--overwrite", "--set", OTHER["semantic"])
    assert done.code == 0, done.err
    assert phases(out, since=said)["predict"] == 1
    assert difference(contents(out / "results"), contents(fresh("semantic"))) == []


OTHER_SLIDE = ("--set", "slide.min_tissue=0.3")


@pytest.mark.parametrize("command", ["tile", "predict", "run"])
@pytest.mark.parametrize("kept", ["tile", "predict"])
def test_another_slide_setting_does_not_remove_what_was_kept_unless_told_to(
    kept, command, lab, tmp_path
):
    words = (lab.pipeline("semantic"), lab.slides[0], "--out", tmp_path)
    assert quadrat(kept, *words).code == 0
    before = contents(tmp_path / "run" / "work" / "oblong")
    done = quadrat(command, *words, *OTHER_SLIDE)
    assert done.code == 2, done.err
    assert done.err.count("\n") == 1
    assert {"tile": "tiles.zarr", "predict": "predictions"}[kept] in done.err
    assert "--overwrite" in done.err
    assert contents(tmp_path / "run" / "work" / "oblong") == before
    if command == "tile":
        assert quadrat(command, *words, *OTHER_SLIDE, "--overwrite").code == 0
        assert contents(tmp_path / "run" / "work" / "oblong") != before
