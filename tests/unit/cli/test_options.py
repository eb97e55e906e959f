"""Options that several commands have."""

from quadrat.cli.options import Common
from quadrat.config.pipeline import load_pipeline


def test_workers_and_device_come_last_and_stand_for_their_keys():
    chosen = Common(overrides=("run.workers=5", "run.threads=3"), workers=7, device="cuda:1")
    run = chosen.pipeline("nuclei", "run.workers=4").run
    assert (run.workers, run.threads, run.device) == (7, 3, "cuda:1")
    assert Common().pipeline("nuclei") == load_pipeline("nuclei")
