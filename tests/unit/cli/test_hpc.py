"""Job scripts: what they ask for, and that a shell understands them (a real SLURM runs them in
tests/end_to_end/test_slurm.py)."""

import shlex
import subprocess
from pathlib import Path

import pytest

from helpers.runs import quadrat
from quadrat.config.pipeline import load_pipeline

WAYS = ("array", "srun", "slurm")


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"slide {i}.tiff" for i in range(12)]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "my slides.csv").write_text("slide\n" + "\n".join(names) + "\n")
    return tmp_path / "my slides.csv"


def init(manifest, *words):
    return quadrat("hpc", "init", "nuclei", manifest, "--out", "an out", *words)


def script(cluster):
    return Path("an out", "hpc", f"{cluster}.sh").read_text()


def asked(text):
    """What a script asks SLURM for."""
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH ")]
    return dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines)


@pytest.mark.parametrize("cluster", WAYS)
def test_a_script_hears_the_signal_before_the_walltime_and_may_be_begun_again(manifest, cluster):
    done = init(manifest, "--cluster", cluster, "--partition", "gpu", "--account", "lab",
                "--gpus", 1, "--time", "1-02:00:00", "--cpus", 6, "--mem", "48G")  # fmt: skip
    assert done.code == 0, done.err
    text = script(cluster)
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    found = asked(text)
    assert found["signal"] == "B:USR1@120"
    assert found["open-mode"] == "append"
    assert "requeue" in found
    assert (found["partition"], found["account"], found["time"]) == ("gpu", "lab", "1-02:00:00")
    if cluster != "slurm":
        assert found["gpus-per-node"] == "1"
        assert (found["cpus-per-task"], found["mem"]) == ("6", "48G")
    last = shlex.split(text.splitlines()[-1])
    assert last[0] == "exec", "else the signal reaches a shell, which does not pass it on"
    assert last[last.index("--manifest") + 1] == str(manifest)
    assert last[last.index("--out") + 1] == str(manifest.parent / "an out")
    assert f"sbatch '{manifest.parent / 'an out' / 'hpc' / f'{cluster}.sh'}'" in done.out


def test_the_tasks_of_an_array_share_the_slides(manifest):
    assert init(manifest).code == 0
    assert asked(script("array"))["array"] == "1-10"
    assert script("array").endswith(' --cluster local --part "$SLURM_ARRAY_TASK_ID/10"\n')
    assert init(manifest, "--array", 3, "--overwrite").code == 0
    assert asked(script("array"))["array"] == "1-3"


def test_worker_jobs_get_what_is_asked_for(manifest):
    words = ("--partition", "gpu", "--gpus", 2, "--time", "02:00:00", "--cpus", 6, "--mem", "48G")
    assert init(manifest, "--cluster", "slurm", "--jobs", 7, *words).code == 0
    last = shlex.split(script("slurm").splitlines()[-1])
    overrides = [last[i + 1] for i, word in enumerate(last) if word == "--set"]
    ask = load_pipeline("nuclei", overrides).slurm
    assert (ask.partition, ask.walltime, ask.cpus, ask.gpus) == ("gpu", "02:00:00", 6, 2)
    assert 48 * 2**30 - 2e6 < ask.memory_gb * 1e9 <= 48 * 2**30
    assert last[last.index("--workers") + 1] == "7"


def test_a_script_that_is_there_is_replaced_only_on_request(manifest):
    assert init(manifest).code == 0
    done = init(manifest, "--array", 2)
    assert done.code == 2
    assert "--overwrite replaces it" in done.err
    assert asked(script("array"))["array"] == "1-10"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--array", 13), "--array is 13, but "),
        (("--array", 0), "12 slides; it must lie in 1 to 12"),
        (("--time", "2h"), "--time is '2h'; write it as HH:MM:SS or D-HH:MM:SS"),
        (("--mem", "32"), "--mem is '32'; write it as 32G or 64000M"),
        (("--cpus", 0), "--cpus is 0; it must be at least 1"),
        (("--gpus", -1), "--gpus is -1; it must be 0 or more"),
        (("--set", "run.clutser=srun"), "did you mean 'cluster'"),
    ],
)
def test_what_cannot_be_asked_for_is_said_before_a_script_is_written(manifest, words, sentence):
    done = init(manifest, *words)
    assert done.code == 2
    assert sentence in done.err
    assert not Path("an out").exists()
