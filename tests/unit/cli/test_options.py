"""Options that several commands have."""

import pytest

from quadrat.cli.options import Common
from quadrat.config.pipeline import load_pipeline
from quadrat.core.errors import ConfigError


def test_workers_and_device_come_last_and_stand_for_their_keys():
    chosen = Common(overrides=("run.workers=5", "run.threads=3"), workers=7, device="cuda:1")
    run = chosen.pipeline("nuclei", "run.workers=4").run
    assert (run.workers, run.threads, run.device) == (7, 3, "cuda:1")
    assert Common().pipeline("nuclei") == load_pipeline("nuclei")


def test_workers_that_are_asked_for_are_started_whatever_the_pipeline_says(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "task: detection\nclasses: [{name: a}]\nmodel: {package: p}\nrun: {cluster: serial}\n"
    )

    def asked(**options):
        run = Common(**options).pipeline(str(file)).run
        return run.cluster, run.workers

    assert asked() == ("serial", None)
    assert asked(workers=3) == ("local", 3)
    serial, local = ("run.cluster=serial",), ("run.cluster=local",)
    assert asked(overrides=serial) == ("serial", None)
    assert asked(overrides=local, workers=3) == ("local", 3)
    assert asked(cluster="srun", workers=3) == ("srun", 3)
    for both in ({"overrides": serial}, {"cluster": "serial"}):
        with pytest.raises(ConfigError, match="--workers 3 asks for processes"):
            asked(**both, workers=3)
