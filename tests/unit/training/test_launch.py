"""Several ranks, started for a job: what they are given, and what becomes of their failures."""

import stat

import pytest
import torch

from quadrat.core.errors import ConfigError, QuadratError, WriteError
from quadrat.training.job import TrainJob, job_to_json
from quadrat.training.launch import JOB, handed_over, run_ranks


def run(job, folder, **options):
    return run_ranks(
        job,
        package="the/package",
        log=folder / "folder" / "torchrun.log",
        **{"processes": 1, "threads": 1, "device": "cpu"} | options,
    )


def test_the_job_is_handed_over_in_a_folder_that_nobody_else_can_open():
    with handed_over('{"a": 1}') as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / JOB).read_text() == '{"a": 1}'
    assert not folder.exists()


def test_more_ranks_than_gpus_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"train\.processes is 3, but this machine has 2 GPUs"):
        run("{}", tmp_path, processes=3, device="auto")
    assert not list(tmp_path.iterdir())


def test_what_a_rank_refuses_is_told_in_its_words(place, tmp_path):
    job = place.job()
    nothing = TrainJob(job.pipeline, (), job.package, job.folder)
    with pytest.raises(QuadratError, match=r"^.*train\.csv has no slide of split 'train'$"):
        run(job_to_json(nothing), tmp_path)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["torchrun.log"]


def test_a_rank_that_cannot_write_ends_as_every_output_that_cannot_be_written(place, tmp_path):
    job = place.job()
    nowhere = TrainJob(job.pipeline, job.works, job.package, "/proc/nobody/can/write/here")
    with pytest.raises(WriteError, match=r"/proc/nobody.*make room"):
        run(job_to_json(nowhere), tmp_path)


def test_a_rank_that_dies_is_told_with_the_end_of_its_log(tmp_path):
    with pytest.raises(
        QuadratError,
        match=r"^a training process of the/package died \(torchrun ended with 1\); run the same "
        r"command again .* The end of .*torchrun\.log: .*\S$",
    ) as error:
        run("this is no job", tmp_path)
    assert "\n" not in str(error.value)
    assert "JSON" in (tmp_path / "folder" / "torchrun.log").read_text()
