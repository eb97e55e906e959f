import json

from quadrat.engine.progress import Reporter


def logged(path):
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def test_a_quiet_reporter_writes_its_log_and_nothing_else(tmp_path, capsys):
    with Reporter(tmp_path / "log.jsonl", quiet=True) as reporter:
        reporter.say("so it is")
        with reporter.phase("predict", 2) as phase:
            phase.advance(2)
    assert capsys.readouterr() == ("", "")
    assert logged(tmp_path / "log.jsonl") == ["say", "phase"]


def test_a_verbose_reporter_prints_what_it_logs_once(tmp_path, capsys):
    with Reporter(tmp_path / "log.jsonl", verbose=True) as reporter:
        reporter.say("so it is")
        reporter.event("traceback", slide="a", trace="line 1\nline 2")
    told = capsys.readouterr().err
    assert told == "so it is\n[traceback] slide=a trace=line 1\nline 2\n"
    assert logged(tmp_path / "log.jsonl") == ["say", "traceback"]


def test_a_reporter_without_a_log_lends_its_loudness_to_one_that_has(tmp_path, capsys):
    with Reporter(quiet=True).into(tmp_path / "run" / "log.jsonl") as reporter:
        reporter.say("so it is")
    assert capsys.readouterr().err == ""
    assert logged(tmp_path / "run" / "log.jsonl") == ["say"]
    with Reporter(tmp_path / "own.jsonl", quiet=True) as own:
        with own.into(tmp_path / "other.jsonl") as same:
            assert same is own
        own.say("still open")
    assert not (tmp_path / "other.jsonl").exists()
