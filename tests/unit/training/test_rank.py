"""One rank of several: it trains or says why not, and ends with the job that started it."""

import json
import subprocess
import sys
from contextlib import nullcontext

from quadrat.training.distributed import SOLO
from quadrat.training.job import TrainJob
from quadrat.training.rank import CODE_ORPHANED, CODE_REFUSED, train_rank


def alone(device):
    """The group of a rank that is alone."""
    assert device.type == "cpu"
    return nullcontext(SOLO)


def test_a_rank_trains_to_the_end_and_leaves_its_checkpoint(place):
    refusal = place.folder / "refused.txt"
    assert train_rank(place.job(), refusal=refusal, join=alone) == 0
    assert place.checkpoint()["ended"]
    assert not refusal.exists()
    assert not (place.folder / "package").exists(), "the package is the job's"


def test_a_rank_that_refuses_its_slides_says_why(place):
    job, refusal = place.job(), place.folder / "refused.txt"
    nothing = TrainJob(job.pipeline, (), job.package, job.folder)
    assert train_rank(nothing, refusal=refusal, join=alone) == CODE_REFUSED
    kind, _, message = refusal.read_text().partition("\n")
    assert kind == "ConfigError"
    assert message.endswith("train.csv has no slide of split 'train'")


def test_a_rank_ends_when_its_job_is_gone():
    program = "import time; from quadrat.training.rank import *; end_with_the_job(); time.sleep(60)"
    rank = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    rank.stdin.write(json.dumps("what is written is not the end").encode())
    rank.stdin.close()
    assert rank.wait(timeout=50) == CODE_ORPHANED
