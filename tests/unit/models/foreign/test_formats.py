"""Files that could run code are refused before torch sees them."""

import io
import json
import pickle
import zipfile

import pytest
import torch

from helpers import foreign
from quadrat.core.errors import PackageError
from quadrat.models.foreign.files import load_file
from quadrat.models.foreign.formats import recognise, refuse_code

RAN = []


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return RAN.append, ("ran",)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    foreign.traced(foreign.Areas(), folder / "net.pt")
    foreign.exported(foreign.Areas(), folder / "net.pt2")
    torch.save(foreign.Areas(), folder / "full.pth")
    (folder / "old.pkl").write_bytes(pickle.dumps([1]))
    (folder / "text.pt").write_text("a network")
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    return folder


def rewritten(path, out, change):
    """A copy of an archive, each member as ``change(name, content)`` gives it."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return out


def json_of(change):
    """Lets ``change`` edit the graph of an archive."""

    def edit(name, content):
        if not name.endswith("model.json"):
            return content
        graph = json.loads(content)
        change(graph["graph_module"]["graph"])
        return json.dumps(graph)

    return edit


def test_formats_are_told_by_content(files, tmp_path):
    assert recognise(files / "net.pt") == "torchscript"
    assert recognise(files / "net.pt2") == "exported"
    assert recognise(files / "full.pth") == "pickle"
    assert recognise(files / "old.pkl") == "pickle"
    renamed = tmp_path / "net.onnx"
    renamed.write_bytes((files / "net.pt").read_bytes())
    assert recognise(renamed) == "torchscript"
    for name in ("text.pt", "other.zip", "none.pt"):
        with pytest.raises(PackageError, match=name):
            recognise(files / name)


def test_a_pickle_is_refused_unless_it_is_trusted(files):
    with pytest.raises(PackageError, match="--trust"):
        refuse_code(files / "full.pth", "pickle")
    refuse_code(files / "full.pth", "pickle", trust=True)


def test_plain_torchscript_and_exported_graphs_are_let_through_and_answer(files):
    image = torch.rand(2, 3, 32, 32)
    for name, kind in (("net.pt", "torchscript"), ("net.pt2", "exported")):
        answer = load_file(files / name, kind)(image)
        assert torch.allclose(answer, foreign.Areas()(image), atol=1e-5)


def test_a_script_that_opens_files_is_refused(files, tmp_path):
    def edit(name, content):
        return content.replace(b"torch.sigmoid", b"torch.from_file") if ".py" in name else content

    out = rewritten(files / "net.pt", tmp_path / "net.pt", edit)
    with pytest.raises(PackageError, match="opens files"):
        load_file(out, "torchscript")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda g: g["nodes"][0].update(target="torch.hub.load"), "the operator 'torch.hub.load'"),
        (lambda g: g["nodes"][0].update(target="torch.ops.aten.from_file.default"), "from_file"),
        (lambda g: g["nodes"][0].update(target="torch.ops.mine.run.default"), "torch.ops.mine"),
        (lambda g: g.update(extra={"expr_str": "__import__('os').system('x')"}), "expression"),
        (lambda g: g.update(extra={"expr_str": "exec('x')"}), "expression"),
        (lambda g: g.update(extra={"expr_str": "().__class__"}), "expression"),
    ],
)
def test_a_graph_with_more_than_tensors_and_sizes_is_refused(change, what, files, tmp_path):
    out = rewritten(files / "net.pt2", tmp_path / "net.pt2", json_of(change))
    with pytest.raises(PackageError, match=what.replace("(", r"\(")):
        load_file(out, "exported")


def test_pickles_inside_of_a_graph_are_refused_and_never_run(files, tmp_path):
    def sample(name, content):
        if "sample_inputs" not in name:
            return content
        buffer = io.BytesIO()
        torch.save(Bomb(), buffer)
        return buffer.getvalue()

    def weights(name, content):
        if not name.endswith("model_constants_config.json"):
            return content
        entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
        return json.dumps({"config": {"x": entry | {"tensor_meta": None}}})

    for edit, what in ((sample, "sample input"), (weights, "a pickled value")):
        out = rewritten(files / "net.pt2", tmp_path / "net.pt2", edit)
        with pytest.raises(PackageError, match=what):
            load_file(out, "exported")
    with zipfile.ZipFile(files / "net.pt2") as archive:
        root = archive.namelist()[0].partition("/")[0]
    out = rewritten(files / "net.pt2", tmp_path / "net.pt2", lambda name, content: content)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(f"{root}/data/constants/opaque_obj_0", pickle.dumps(Bomb()))
    with pytest.raises(PackageError, match="which is no tensor"):
        load_file(out, "exported")
    assert RAN == []
