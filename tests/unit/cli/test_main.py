"""The command line as a whole: pages, wrong usage, exit codes, what the shell can complete."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.runs import quadrat
from quadrat.cli import runs
from quadrat.cli.main import build_app
from quadrat.cli.options import Common
from quadrat.core.errors import ConfigError, QuadratError, StoreError

APP = build_app()
COMMANDS = [name for name in APP if not name.startswith("-")]
GROUPS = {group: list(APP[group].resolved_commands()) for group in ("annotations", "config")}
WITH_GROUPS = [
    *([name] for name in COMMANDS),
    *([group, name] for group, names in GROUPS.items() for name in names if name[0] != "-"),
]


def of(*words):
    """The values that a command would be called with, by name."""
    _, bound, _ = build_app().parse_args(words, print_error=False, exit_on_error=False)
    return bound.arguments


@pytest.mark.parametrize("words", WITH_GROUPS, ids=" ".join)
def test_every_page_has_examples_that_can_be_parsed_and_a_meaning_for_each_option(words):
    done = quadrat(*words, "--help")
    assert (done.code, done.err) == (0, "")
    page, _, rest = done.out.partition("examples:\n")
    assert page.startswith(f"usage: quadrat {' '.join(words)}")
    examples = re.findall(r"^  (quadrat .*?)(?:  | >| \\|$)", page + rest, re.MULTILINE)
    assert any(example.startswith(f"quadrat {words[0]}") for example in examples)
    for example in examples:
        of(*shlex.split(example)[1:])
    assert max(map(len, done.out.splitlines())) <= 80
    entries = rest.partition("\n\n")[2].splitlines()
    assert not [line for line in entries if line.lstrip().startswith("--") and "  " not in line[4:]]


def test_the_first_page_comes_without_numpy_or_pydantic():
    code = (
        "import sys\nfrom quadrat.cli.main import main\nmain(['--help'])\n"
        "sys.exit(' '.join({'numpy', 'torch', 'dask', 'zarr', 'pydantic', 'yaml'} & "
        "sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [[], ["annotations"], ["config"]])
def test_without_a_command_the_page_is_printed_and_nothing_is_done(words):
    done = quadrat(*words)
    assert (done.code, done.err) == (2, "")
    assert done.out.startswith("usage: quadrat")


def test_the_version_is_printed():
    assert quadrat("--version").out.startswith("quadrat 0.")
    assert quadrat("run", "--version").code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("rnu nuclei", "Did you mean \"run\"\\?.* See 'quadrat --help'."),
        ("run", "PIPELINE requires an argument. See 'quadrat run --help'."),
        ("run nuclei a.svs --stet x=1", "Unknown option: --stet. Did you mean --set?"),
        ("run nuclei a.svs --mpp fine", 'Invalid value for --mpp: unable to convert "fine"'),
        ("run nuclei a.svs -j two", "unable to convert"),
        ("run nuclei a.svs --out", "--out requires an argument"),
        ("run nuclei a.svs -j 0", "run.workers is 0; it must be at least 1"),
        ("run nuclei a.svs --device tpu", "run.device is 'tpu'; it must be auto, cpu"),
        ("annotations chek x", 'Unknown command "chek". Did you mean "check"'),
        ("annotations export x --out y", "--to requires an argument"),
        ("annotations export x --out y --to z", 'Choose from: "geojson", "coco"'),
        ("seams x --origin 1", "--origin requires 2"),
        ("evaluate nuclei --distance-um -1", "--distance-um is -1; it must be a number of um abo"),
        ("inspect", "no slide was given"),
        ("verify", "requires an argument"),
        ("demo --workers 0", "--workers is 0"),
        ("phantom --name ../x", "--name is '../x'; it must be a file's name"),
        ("init detection", "--slides requires an argument"),
    ],
)
def test_wrong_usage_is_one_sentence_on_stderr_and_writes_nothing(
    words, told, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = quadrat(*words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("quadrat: ")
    assert done.err.count("\n") == 1
    assert re.search(told, done.err), done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["run", "nuclei", ""], ["train", ""], ["run", "nuclei", "x", "--out", ""]]
)
def test_an_empty_argument_is_a_variable_that_is_not_set(words):
    done = quadrat(*words)
    assert done.code == 2
    assert "an argument is empty" in done.err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt("signal 15"), 75, "run the same command again to go on"),
        (StoreError("the store is damaged"), 74, "quadrat: the store is damaged"),
        (OSError(28, "No space left on device", "/x"), 74, "quadrat: /x No space left on device"),
        (QuadratError("so it is"), 2, "quadrat: so it is"),
        (ConfigError("so it is"), 2, "quadrat: so it is"),
    ],
)
def test_an_error_has_its_exit_code_and_no_traceback(error, code, told, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Common, "pipeline", fail)
    done = quadrat("run", "nuclei", "a.svs")
    assert (done.code, done.out) == (code, "")
    assert told in done.err
    assert "Traceback" not in done.err


def test_loudness_reaches_the_reporter():
    assert [(r.quiet, r.verbose) for r in (Common().reporter(), Common(quiet=True).reporter())] == [
        (False, False),
        (True, False),
    ]
    assert Common(verbose=True).reporter().verbose
    assert of("run", "nuclei", "a.svs", "-q", "-v", "-j", "3")["options"] == runs.Options(
        quiet=True, verbose=True, workers=3
    )


@pytest.mark.parametrize(
    ("words", "folds"),
    [
        (["train", "a.yaml"], None),
        (["train", "a.yaml", "--folds"], True),
        (["train", "a.yaml", "--folds", "5"], 5),
        (["train", "--folds", "5", "a.yaml"], 5),
        (["evaluate", "a.yaml", "--folds", "--out", "x"], True),
        (["evaluate", "a.yaml", "--folds=3"], 3),
    ],
)
def test_folds_may_be_told_their_number(words, folds):
    found = of(*words)
    assert found["pipeline"] == "a.yaml"
    assert found.get("folds") == folds
    assert type(found.get("folds")) is type(folds)


def test_options_of_several_values_are_read_as_before():
    assert of("evaluate", "a", "--results", "r", "s", "--json")["results"] == (Path("r"), Path("s"))
    assert of("seams", "x", "--tile", "64", "--origin", "0", "-3.5")["origin"] == (0.0, -3.5)
    assert of("phantom", "--size", "64")["size"] == (64,)
    assert of("phantom", "--size", "64", "96", "--seed", "1")["size"] == (64, 96)
    assert of("run", "n", "--set", "a=1", "x.svs", "--set=b=2")["options"].overrides == (
        "a=1",
        "b=2",
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete_commands_and_options(shell):
    script = quadrat("--show-completion", shell).out
    assert all(name in script for name in COMMANDS)
    assert "distance-um" in script
    assert quadrat("--show-completion").out == quadrat("--show-completion", "bash").out


def test_bash_completes_pipelines_files_and_choices(tmp_path):
    (tmp_path / "my.yaml").touch()
    (tmp_path / "quadrat").write_text(f'#!/bin/sh\nexec {sys.executable} -m quadrat "$@"\n')
    (tmp_path / "quadrat").chmod(0o755)
    script = tmp_path / "completion.bash"
    script.write_text(quadrat("--show-completion", "bash").out)
    code = f"""
source {script}
try() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _quadrat; echo "${{COMPREPLY[*]}}"
}}
try {tmp_path}/quadrat ru
try {tmp_path}/quadrat run nucl
try {tmp_path}/quadrat run my
try {tmp_path}/quadrat run nuclei comp
try {tmp_path}/quadrat demo --scale ""
"""
    done = subprocess.run(
        ["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["run", "nuclei", "my.yaml", "completion.bash", "small full"]


def test_the_completion_is_installed_where_the_shell_looks_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert quadrat("--install-completion", "--shell", "bash").code == 0
    installed = tmp_path / ".local/share/bash-completion/completions/quadrat"
    assert "complete -F _quadrat quadrat" in installed.read_text()


def test_what_a_terminal_cannot_show_is_escaped():
    done = subprocess.run(
        [sys.executable, "-m", "quadrat", "inspect", "no_such_ä.svs"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(b"no_such_\\xe4.svs\n  cannot be read: ")
    assert done.stderr == b""
