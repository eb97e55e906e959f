"""What the documents say of the code is so: the files that they name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "quadrat"
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/tasks.md"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_module_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    quoted = re.findall(r"`([^`\n]+)`", text)
    names = {name for one in quoted for name in re.findall(r"[\w./-]+\.py\b", one)}
    assert names
    missing = {
        name
        for name in names
        if not (PACKAGE / name).exists()
        and not (ROOT / name).exists()
        and not ("/" not in name and list(PACKAGE.rglob(name)))
    }
    assert not missing
