"""``quadrat view`` and ``quadrat report`` on the command line."""

import re
import signal
import urllib.request

import pytest

from helpers import shown
from helpers.runs import end_session, quadrat, start, wait_until


@pytest.fixture
def out(tmp_path):
    return shown.make_run(tmp_path, ("one", "two"), objects=5)


@pytest.mark.parametrize("command", ["view", "report"])
def test_a_folder_without_results_is_refused(tmp_path, command):
    done = quadrat(command, tmp_path)
    assert done.code == 2
    assert "holds no results" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tow",), "no results of a slide 'tow'; did you mean 'two'?"),
        (("xyz",), r"no results of a slide 'xyz' (2 others have)"),
        (("--port", "70000"), "--port is 70000; it must be 0 (any) to 65535"),
        (("--slides", "/no/such/folder"), "--slides is /no/such/folder, which is no folder"),
    ],
)
def test_a_wrong_word_is_refused_with_the_way_out(out, words, said):
    done = quadrat("view", out, *words)
    assert done.code == 2
    assert said in done.err


def test_a_port_that_is_taken_is_refused(out):
    from socket import socket

    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = quadrat("view", out, "--port", taken.getsockname()[1])
    assert done.code == 2
    assert "cannot be used (Address already in use); choose another" in done.err


def test_the_viewer_prints_its_address_and_ends_with_a_signal(out, tmp_path):
    log = tmp_path / "log"
    process = start("view", out, "two", log=log)
    try:
        wait_until(lambda: "Ctrl-C" in log.read_text(), process=process)
        url = re.search(r"http://127\.0\.0\.1:\d+/\S{20,}/slide/two/", log.read_text())[0]
        with urllib.request.urlopen(f"{url}about.json", timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        end_session(process)
