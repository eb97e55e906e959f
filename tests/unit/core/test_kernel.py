"""Functions are compiled whether or not there is a folder to keep what was compiled."""

import importlib.util
import pickle
from pathlib import Path

import numba
import pytest
from numba.core.caching import NullCache

import quadrat
from helpers.runs import small_files
from quadrat.core.kernel import is_kept, kernel

SOURCE = "def twice(x):\n    return 2 * x\n"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder that compiled functions are kept in."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def twice(tmp_path):
    """A function of a module in a file, as a new process finds it."""
    file = tmp_path / "module_of_twice.py"
    file.write_text(SOURCE)

    def load():
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return kernel(module.twice)

    return load


def hits(compiled):
    return sum(compiled.stats.cache_hits.values())


def test_a_function_without_a_file_is_compiled_and_not_kept():
    words = {}
    exec(SOURCE, words)  # as in a notebook, and in `python -`
    compiled = kernel(words["twice"])
    assert compiled(21) == 42
    assert isinstance(compiled._cache, NullCache)


def test_what_is_compiled_is_found_by_a_later_process(cache, twice):
    assert is_kept()
    assert twice()(21) == 42
    again = twice()
    assert again(21) == 42
    assert hits(again) == 1


def test_where_no_folder_can_be_written_functions_are_compiled_all_the_same(
    tmp_path, twice, monkeypatch
):
    (tmp_path / "file").touch()  # no folder can be made in a file, whoever asks
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [_locators()[0]])
    assert not is_kept()
    assert twice()(21) == 42


def test_nothing_is_written_where_nobody_knows_the_home_folder(twice, tmp_path, monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)
    assert twice()(21) == 42
    assert not is_kept()
    assert [path.name for path in tmp_path.iterdir()] == ["module_of_twice.py"]


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(1)])
def test_a_damaged_cache_is_made_anew(cache, twice, ending, content):
    twice()(21)
    (file,) = cache.rglob(f"*.{ending}")
    file.write_bytes(content)
    assert twice()(21) == 42
    healed = twice()
    assert healed(21) == 42
    assert hits(healed) == 1


def test_a_full_disk_does_not_stop_a_function(cache, twice):
    with small_files(10):
        assert twice()(21) == 42
    assert hits(twice()) == 0


def test_no_function_is_compiled_with_a_cache_of_its_own():
    source = Path(quadrat.__file__).parent
    assert [path for path in source.rglob("*.py") if "cache=True" in path.read_text("utf-8")] == []


def _locators():
    return numba.core.caching.CacheImpl._locator_classes
