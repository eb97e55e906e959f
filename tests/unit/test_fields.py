"""Every field of a public record says under itself what it holds."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "quadrat"
FILES = sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py"))
RECORDS = ("dataclass", "NamedTuple", "TypedDict")


def bare_fields(source: str) -> list[str]:
    """The fields of public records without a line, as ``Class.field``; a ClassVar is no field."""
    found = []
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    for made in classes:
        heads = [ast.unparse(one) for one in (*made.decorator_list, *made.bases)]
        kinds = {head.partition("(")[0].rpartition(".")[2] for head in heads}
        if made.name.startswith("_") or not kinds.intersection(RECORDS):
            continue
        for field, below in zip(made.body, [*made.body[1:], ast.Pass()], strict=True):
            a_field = isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.dump(field)
            text = isinstance(below, ast.Expr) and getattr(below.value, "value", None)
            if a_field and not isinstance(text, str):
                found.append(f"{made.name}.{ast.unparse(field.target)}")
    return found


@pytest.mark.parametrize("file", FILES)
def test_every_field_of_a_public_record_has_a_line(file: str) -> None:
    assert bare_fields((SRC / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("head", ["@dataclass(slots=True)\nclass A:", "class A(NamedTuple):"])
def test_a_field_without_a_line_is_found(head: str) -> None:
    source = f'{head}\n    x: int\n    """px."""\n    y: int\n    z: str = ""\n    N: ClassVar = 1'
    assert bare_fields(source) == ["A.y", "A.z"]
