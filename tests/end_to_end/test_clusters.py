"""Wherever the jobs run, the results are the same bytes (SLURM: test_slurm.py)."""

import json
from contextlib import contextmanager

import dask
import pytest
from distributed import Client, LocalCluster

from helpers.runs import contents, difference
from quadrat.config.manifest import slides_from_paths
from quadrat.config.pipeline import load_pipeline
from quadrat.core.errors import ClusterError, ConfigError
from quadrat.engine import remote
from quadrat.engine.certificates import CERTIFICATE, KEY, write_certificates
from quadrat.engine.cluster import open_executor
from quadrat.engine.executor import Job, JobList
from quadrat.engine.progress import Reporter
from quadrat.engine.run import run
from quadrat.slides.identity import slide_identity


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A cluster that somebody else has started: the folder of its scheduler file."""
    folder = tmp_path_factory.mktemp("cluster")
    security = write_certificates(folder)
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="tls://127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        security=security,
        silence_logs=50,
    ) as cluster:
        file = folder / "scheduler.json"
        file.write_text(json.dumps({"address": cluster.scheduler_address}))
        yield folder


@pytest.fixture
def configured(there):
    """Dask's own configuration names the certificates."""
    certificate, key = str(there / CERTIFICATE), str(there / KEY)
    files = {"ca-file": certificate, "client.cert": certificate, "client.key": key}
    with dask.config.set({f"distributed.comm.tls.{name}": file for name, file in files.items()}):
        yield


def address_of(folder):
    return json.loads((folder / "scheduler.json").read_text())["address"]


def alive(folder):
    """How many workers a cluster still has."""
    security = remote.read_certificates(folder)
    with Client(address_of(folder), security=security, set_as_default=False) as client:
        return len(client.scheduler_info()["workers"])


@pytest.mark.parametrize("way", ["serial", "local", "address", "scheduler file"])
def test_every_way_of_running_gives_the_same_bytes(
    way, lab, reference, there, configured, tmp_path
):
    cluster = {"address": address_of(there), "scheduler file": str(there / "scheduler.json")}
    with Reporter(quiet=True) as reporter:
        report = run(
            load_pipeline(str(lab.pipeline("semantic"))),
            slides_from_paths([str(path) for path in lab.slides], mpp=None),
            tmp_path / "out",
            cluster=cluster.get(way, way),
            workers=2 if way == "local" else 0,
            reporter=reporter,
        )
    assert report.exit_code == 0
    assert difference(contents(tmp_path / "out" / "results"), contents(reference("semantic"))) == []
    assert alive(there) == 2, "it is left as it was found"


@pytest.mark.parametrize("way", ["serial", "local"])
def test_slides_that_are_copied_to_the_machine_first_give_the_same_bytes(
    way, lab, reference, tmp_path, monkeypatch
):
    (tmp_path / "near").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "near"))
    settings = ["run.stage_gb=1"]
    with Reporter(quiet=True) as reporter:
        report = run(
            load_pipeline(str(lab.pipeline("semantic")), settings),
            slides_from_paths([str(path) for path in lab.slides], mpp=None),
            tmp_path / "out",
            cluster=way,
            workers=2 if way == "local" else 0,
            reporter=reporter,
        )
    assert report.exit_code == 0
    assert difference(contents(tmp_path / "out" / "results"), contents(reference("semantic"))) == []
    (staged,) = (tmp_path / "near").glob("quadrat-staged-*")
    used = {path.stem for path in staged.glob("*.lock")}
    assert used == {"all", *(slide_identity(str(path)) for path in lab.slides)}
    assert not [path for path in staged.iterdir() if path.is_dir()], "a copy was left behind"


def test_two_drivers_after_each_other_use_one_cluster(there, tmp_path):
    for name in ("a", "b"):
        file = str(there / "scheduler.json")
        with open_executor(cluster=file, workers=0, threads=1, folder=tmp_path / name) as executor:
            executor.numerics("cpu", 1)
            (outcome,) = executor.run(JobList([Job("one", abs, -1)]))
        assert outcome.receipt == 1
        assert list((tmp_path / name / "workers").glob("*.jsonl")), "workers log where the run is"


def test_a_cluster_cannot_be_used_without_its_certificate(there, tmp_path):
    address = address_of(there)
    with pytest.raises(ConfigError, match="needs certificates"):
        opened(address, tmp_path)
    (tmp_path / "other").mkdir()
    other = write_certificates(tmp_path / "other")
    with pytest.raises(OSError, match=r"(?i)tls|ssl|timed out|certificate"):
        Client(address, security=other, timeout=5, set_as_default=False)
    plain = address.replace("tls://", "tcp://")
    with pytest.raises(OSError, match=r"(?i)timed out|reset"):
        Client(plain, timeout=3, set_as_default=False)


def test_a_cluster_without_tls_has_to_be_asked_for(tmp_path):
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        host="tcp://127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:
        address = cluster.scheduler_address
        file = tmp_path / "scheduler.json"
        file.write_text(json.dumps({"address": address}))
        for where in (address, str(file)):
            with pytest.raises(ConfigError, match=r"without TLS.*--insecure-cluster"):
                opened(where, tmp_path)
        with open_executor(
            cluster=address, workers=0, threads=1, insecure=True, folder=tmp_path
        ) as executor:
            (outcome,) = executor.run(JobList([Job("one", abs, -1)]))
    assert outcome.receipt == 1


@pytest.mark.parametrize("content", ["", '{"address": "tls://127.0', "{}", None, "stale"])
def test_a_scheduler_file_that_is_of_no_use_is_said_in_time(
    content, tmp_path, monkeypatch, there, configured
):
    monkeypatch.setattr(remote, "PATIENCE_S", 2.0)
    monkeypatch.setattr(remote, "ATTEMPT_S", 1.0)
    file = tmp_path / "scheduler.json"
    if content is not None:
        file.write_text('{"address": "tls://127.0.0.1:9"}' if content == "stale" else content)
    with pytest.raises(ClusterError, match=r"no scheduler answered at .*scheduler\.json for 2 s"):
        opened(str(file), tmp_path)


def test_a_scheduler_file_of_a_former_life_is_read_again_until_it_is_the_right_one(
    there, configured, tmp_path, monkeypatch
):
    file = tmp_path / "scheduler.json"
    file.write_text('{"address": "tls://127.0.0.1:9"}')
    looks = []

    def look(seconds):
        looks.append(seconds)
        file.write_text((there / "scheduler.json").read_text())

    monkeypatch.setattr(remote.time, "sleep", look)
    with opened(str(file), tmp_path) as executor:
        monkeypatch.undo()
        assert len(executor.members) == 2
    assert looks


def test_workers_of_another_version_are_refused(there, tmp_path, monkeypatch):
    monkeypatch.setattr("quadrat.engine.dask.__version__", "9.9")
    with (
        opened(str(there / "scheduler.json"), tmp_path) as executor,
        pytest.raises(ConfigError, match=r"has quadrat .*, this command 9\.9; start workers"),
    ):
        executor.numerics("cpu", 1)


def test_workers_that_do_not_see_the_run_are_refused(there, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "quadrat.engine.dask.make_folder", lambda path: None
    )  # as on another file system
    with (
        opened(str(there / "scheduler.json"), tmp_path / "elsewhere") as executor,
        pytest.raises(ConfigError, match=r"does not see the folder of the run; give an --out"),
    ):
        executor.numerics("cpu", 1)


@contextmanager
def closing(context, executor):
    try:
        yield executor
    finally:
        context.__exit__(None, None, None)


def opened(where, folder):
    """An executor that is open already when it is entered: what opening refuses, this raises."""
    context = open_executor(cluster=where, workers=0, threads=1, folder=folder)
    return closing(context, context.__enter__())
