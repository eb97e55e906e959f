"""Only ``core/files.py`` writes files: it alone knows how one appears whole, and on the disk."""

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "quadrat"
ALLOWED = {
    "core/files.py": "the one way",
    "training/launch.py": "the output of a process that it starts",
}
FILES = sorted({path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py")} - ALLOWED.keys())
MODE = re.compile(r"[rwaxbt+]{1,3}")
MOVES = ("replace", "rename", "renames", "move", "copy", "copy2", "copyfile", "copytree", "rmtree")
NEVER = ("write_text", "write_bytes", "tofile", "save_file", "NamedTemporaryFile", "mkstemp")
STREAMS = {"save": 0, "savez": 0, "savez_compressed": 0, "savefig": 0, "pq.write_table": 1,
           "pq.ParquetWriter": 0}  # fmt: skip
"""What libraries write, by the place of the file among the words: it must be called ``stream``."""


def breaches(source: str) -> list[int]:
    """The lines of a file that write, move or remove files by themselves."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and writes(node)
    ]


def writes(call: ast.Call) -> bool:
    owner = getattr(getattr(call.func, "value", None), "id", "")
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    words = [*call.args, *(word.value for word in call.keywords)]
    texts = [word.value for word in words if isinstance(word, ast.Constant)]
    modes = [text for text in texts if isinstance(text, str) and MODE.fullmatch(text)]
    if name == "open":
        return owner != "ShardedArray" and any(set(mode) & set("wax+") for mode in modes)
    place = STREAMS.get(f"{owner}.{name}", STREAMS.get(name))
    if place is not None and isinstance(call.func, ast.Attribute) and len(words) > place:
        return getattr(words[place], "id", "") != "stream"
    return name in NEVER or (name in MOVES and (owner in ("os", "shutil") or name == "rename"))


@pytest.mark.parametrize("file", FILES)
def test_a_file_writes_through_core_files_alone(file: str) -> None:
    assert breaches((SRC / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "path.open('wb')",
        "open(path, mode='a')",
        "open(path, 'r+b')",
        "path.write_text(text)",
        "os.replace(partial, path)",
        "partial.rename(path)",
        "shutil.rmtree(folder)",
        "np.save(path, array)",
        "image.save(folder / 'a.png')",
        "pq.write_table(table, path)",
        "figure.savefig(path)",
        "save_file(tensors, path)",
    ],
)
def test_every_other_way_to_write_is_found(line: str) -> None:
    assert breaches(f"def f():\n    {line}\n") == [2]
