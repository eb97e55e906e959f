import json
from dataclasses import replace

import pytest
import torch

from helpers.faults import NO_ROOM, REMOVING, WRITING, Killed, disk
from helpers.runs import contents, small_files
from quadrat.core.errors import ConfigError, PackageError, QuadratError, WriteError
from quadrat.core.files import sha256_of, write_file
from quadrat.core.lattice import Lattice
from quadrat.core.objects import ClassInfo
from quadrat.models.package import (
    CARD,
    HEADS,
    WEIGHTS,
    begin_from,
    check_stride,
    exactness,
    load_package,
    read_card,
    rounded,
    save_package,
    write_card,
)
from quadrat.models.spec import spec_from_dict, spec_to_dict
from quadrat.models.task import ModelSpec
from quadrat.models.unet import UNet
from quadrat.tasks import build_network, get_task, task_names

LATTICE = Lattice(core=64, halo=48, stride=8, shard=128)


def spec_for(task, *, widths=(4, 6, 8), lattice=LATTICE):
    return ModelSpec(
        task=task,
        classes=(ClassInfo("a", (1, 2, 3)), ClassInfo("b", (4, 5, 6))),
        mpp=0.5,
        lattice=lattice,
        widths=widths,
        thresholds=dict(get_task(task).default_thresholds),
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """(folder, model, spec) of a saved package; never changed."""
    torch.manual_seed(0)
    spec = spec_for("instance")
    model = get_task("instance").build(spec)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    folder = tmp_path_factory.mktemp("packages") / "mine"
    save_package(folder, model, spec, about={"metrics": {"f1": 0.5}, "license": "Apache-2.0"})
    return folder, model, spec


@pytest.fixture
def folder(original, tmp_path):
    """A copy that a test may spoil."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (WEIGHTS, CARD):
        (copy / name).write_bytes((original[0] / name).read_bytes())
    return copy


def test_weights_specification_and_text_survive_a_round_trip(original):
    folder, model, spec = original
    package = load_package(folder, build_network, task="instance")
    assert package.spec == spec
    assert not package.model.training
    want = model.state_dict()
    found = package.model.state_dict()
    assert found.keys() == want.keys()
    assert all(torch.equal(found[k], want[k]) and found[k].dtype == want[k].dtype for k in want)
    assert package.card["metrics"] == {"f1": 0.5}
    assert package.card["license"] == "Apache-2.0"
    assert package.card["weights_sha256"] == sha256_of(folder / WEIGHTS)
    assert "not for diagnosis" in package.card["intended_use"]
    assert sorted(p.name for p in folder.parent.iterdir()) == ["mine"]
    assert sorted(p.name for p in folder.iterdir()) == sorted((WEIGHTS, CARD))


def test_specifications_of_all_kinds_pass_through_json():
    for task in ("classification", "detection", "instance", "semantic"):
        spec = spec_for(task)
        assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec


def test_saving_again_replaces_the_whole_package_and_is_byte_for_byte_the_same(original, tmp_path):
    folder, model, spec = original
    again = tmp_path / "mine"
    again.mkdir()
    (again / "left over").write_text("x")
    save_package(again, model, spec, about={"metrics": {"f1": 0.5}, "license": "Apache-2.0"})
    for name in (WEIGHTS, CARD):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(p.name for p in again.iterdir()) == sorted((WEIGHTS, CARD))


def test_changed_weights_are_refused_with_both_hashes(folder):
    stated = read_card(folder)["weights_sha256"]
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    found = sha256_of(folder / WEIGHTS)
    assert found != stated
    with pytest.raises(PackageError) as error:
        load_package(folder, build_network)
    assert found[:12] in str(error.value)
    assert stated[:12] in str(error.value)


def test_a_package_of_another_task_is_refused_with_both_names(folder):
    with pytest.raises(PackageError, match=r"instance.*detection"):
        load_package(folder, build_network, task="detection")


def test_a_missing_folder_or_card_or_weights_is_refused(folder, tmp_path):
    with pytest.raises(PackageError, match="not a model package"):
        load_package(tmp_path / "none", build_network)
    (folder / WEIGHTS).unlink()
    with pytest.raises(PackageError, match=WEIGHTS):
        load_package(folder, build_network)
    (folder / CARD).unlink()
    with pytest.raises(PackageError, match=CARD):
        load_package(folder, build_network)


@pytest.mark.parametrize(
    "text",
    [b"{", b"", b"\xff\xfe", b"[]", b"null", b"3", b"{}", b'{"schema": 2}', b'{"schema": 1}'],
)
def test_a_card_that_is_no_card_is_refused(folder, text):
    (folder / CARD).write_bytes(text)
    with pytest.raises(PackageError, match=CARD):
        load_package(folder, build_network)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda card: card.pop("spec"),
        lambda card: card.pop("weights_sha256"),
        lambda card: card["spec"].pop("lattice"),
        lambda card: card["spec"].pop("thresholds"),
        lambda card: card["spec"]["lattice"].update(extra=1),
        lambda card: card["spec"].update(widths=3),
        lambda card: card["spec"].update(mpp="fine"),
        lambda card: card["spec"].update(classes=[{"name": "a"}]),
        lambda card: card["spec"].update(task="other"),
        lambda card: card["spec"]["lattice"].update(core=63),
    ],
)
def test_a_card_with_something_missing_or_wrong_is_refused(folder, spoil):
    card = json.loads((folder / CARD).read_text())
    spoil(card)
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(QuadratError):
        load_package(folder, build_network)


def test_weights_that_do_not_fit_the_card_or_are_no_weights_are_refused(folder, original):
    spec = original[2]
    write_card(folder, replace(spec, widths=(4, 6, 10)), about={})
    with pytest.raises(PackageError, match="does not fit"):
        load_package(folder, build_network)
    (folder / WEIGHTS).write_bytes(b"not safetensors")
    write_card(folder, spec, about={})
    with pytest.raises(PackageError, match="does not fit"):
        load_package(folder, build_network)


def test_the_shipped_network_is_tiling_exact_at_a_halo_of_48_and_says_so_in_its_card(tmp_path):
    lattice = Lattice(core=512, halo=48, stride=8, shard=2048)
    spec = spec_for("instance", widths=(24, 48, 96), lattice=lattice)
    save_package(tmp_path / "p", get_task("instance").build(spec), spec, about={})
    card = read_card(tmp_path / "p")["exactness"]
    assert (card["stride"], card["receptive_radius_px"], card["promise"]) == (8, 47, "tiling-exact")
    assert card["window_over_core"] == pytest.approx((608 / 512) ** 2, abs=1e-3)


@pytest.mark.parametrize(
    ("task", "halo", "promise"),
    [
        ("instance", 48, "tiling-exact"),
        ("semantic", 48, "tiling-exact"),
        ("detection", 48, "tiling-exact"),
        ("instance", 40, "schedule-exact"),
        ("instance", 0, "schedule-exact"),
        ("classification", 48, "schedule-exact"),
    ],
)
def test_the_promise_follows_from_the_halo_and_the_measured_radius(task, halo, promise):
    spec = spec_for(task, lattice=Lattice(core=64, halo=halo, stride=8, shard=64))
    found = exactness(get_task(task).build(spec), spec)
    assert found["promise"] == promise
    assert (found["receptive_radius_px"] is None) == (task == "classification")


def edited(folder, **changes):
    """The folder with its card's exactness changed by hand."""
    card = json.loads((folder / CARD).read_text())
    card["exactness"] = card["exactness"] | changes
    (folder / CARD).write_text(json.dumps(card))
    return folder


def edited_lattice(folder, **changes):
    card = json.loads((folder / CARD).read_text())
    card["spec"]["lattice"] |= changes
    (folder / CARD).write_text(json.dumps(card))
    return folder


def test_the_card_says_what_was_measured(original):
    card = read_card(original[0])["exactness"]
    assert (card["stride"], card["measured_stride"], card["halo_px"]) == (8, 8, 48)
    assert (
        card["receptive_radius_px"]
        == max(card["structural_radius_px"], card["impulse_radius_px"])
        == 47
    )


def test_a_card_that_promises_more_than_its_halo_covers_is_refused(folder):
    with pytest.raises(PackageError, match=r"radius 47 px is more than the halo 40 px"):
        load_package(edited_lattice(folder, halo=40), build_network)


def test_a_radius_made_smaller_by_hand_is_found_out(folder):
    edited_lattice(edited(folder, receptive_radius_px=24), halo=24)
    with pytest.raises(PackageError, match=r"24 px, but the network reaches"):
        load_package(folder, build_network)


def test_a_promise_changed_by_hand_is_found_out(tmp_path):
    spec = spec_for("classification")
    save_package(tmp_path / "p", get_task("classification").build(spec), spec, about={})
    for radius in (None, 10):
        with pytest.raises(PackageError, match=r"tiling-exact|reaches"):
            load_package(
                edited(
                    tmp_path / "p",
                    promise="tiling-exact",
                    receptive_radius_px=radius,
                    measured_stride=8,
                ),
                build_network,
            )


def test_a_lattice_out_of_step_with_the_network_is_refused_when_loaded(folder):
    with pytest.raises(PackageError, match="not of the stride 8"):
        load_package(edited_lattice(folder, stride=4), build_network)


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 16},
        {"stride": 0},
        {"stride": "8"},
        {"measured_stride": 16},
        {"measured_stride": None},
        {"receptive_radius_px": None},
        {"receptive_radius_px": -1},
        {"receptive_radius_px": True},
        {"promise": "exact"},
    ],
)
def test_a_card_whose_measurements_make_no_sense_is_refused(folder, changes):
    with pytest.raises(PackageError, match=CARD):
        load_package(edited(folder, **changes), build_network)


def test_a_card_without_measurements_is_refused(folder):
    card = json.loads((folder / CARD).read_text())
    del card["exactness"]
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(PackageError, match="exactness"):
        load_package(folder, build_network)


def test_a_schedule_exact_package_loads_with_a_halo_smaller_than_its_reach(tmp_path):
    spec = spec_for("instance", lattice=Lattice(core=64, halo=16, stride=8, shard=64))
    model = get_task("instance").build(spec)
    measured = exactness(model, spec)
    save_package(
        tmp_path / "p", model, spec, about={}, measured=measured | {"seam_mismatch": {"pairs": 3}}
    )
    card = load_package(tmp_path / "p", build_network).card["exactness"]
    assert card == measured | {"seam_mismatch": {"pairs": 3}}
    assert card["promise"] == "schedule-exact"


def test_a_network_whose_measured_stride_is_not_what_it_states_is_refused_at_an_unfit_lattice():
    model = UNet((4, 6), outputs=4, out_stride=1)
    model.stride = 2  # it is 4
    with pytest.raises(ConfigError, match=r"measured stride 4 .*set model.stride=4"):
        exactness(
            model, spec_for("instance", lattice=Lattice(core=66, halo=34, stride=2, shard=66))
        )


def test_a_lattice_that_is_out_of_step_with_the_network_is_refused():
    spec = spec_for("instance", lattice=Lattice(core=60, halo=48, stride=4, shard=60))
    with pytest.raises(ConfigError, match="stride"):
        exactness(UNet((4, 6, 8), outputs=4, out_stride=1), spec)


# -- half precision, and going on from a package


@pytest.mark.parametrize("task", task_names())
def test_a_package_in_half_precision_answers_bit_for_bit_as_the_network_that_was_measured(
    task, tmp_path
):
    torch.manual_seed(1)
    torch.set_num_threads(1)
    spec = spec_for(task)
    model = get_task(task).build(spec)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(1e-6, 3.0)
            module.num_batches_tracked.fill_(123_457)  # more than a half can count
    exact = {name: value.clone() for name, value in model.state_dict().items()}
    assert rounded(model, "float32") is model
    assert all(torch.equal(value, exact[name]) for name, value in model.state_dict().items())
    measured = rounded(model, "float16").eval()
    assert any(not torch.equal(value, exact[name]) for name, value in measured.state_dict().items())
    save_package(tmp_path / "half", measured, spec, about={}, precision="float16")
    save_package(tmp_path / "whole", measured, spec, about={})
    loaded = load_package(tmp_path / "half", build_network).model
    for name, value in loaded.state_dict().items():
        assert value.dtype == exact[name].dtype
        assert torch.equal(value, measured.state_dict()[name])
    assert (
        int(next(v for n, v in loaded.state_dict().items() if n.endswith("num_batches_tracked")))
        == 123_457
    )
    sizes = [(tmp_path / kind / WEIGHTS).stat().st_size for kind in ("half", "whole")]
    assert sizes[0] < 0.65 * sizes[1]
    image = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        answers = [network(image) for network in (measured, loaded)]
    pairs = [[a] if isinstance(a, torch.Tensor) else list(a.tensors()) for a in answers]
    assert all(torch.equal(one, other) for one, other in zip(*pairs, strict=True))


@pytest.mark.parametrize(("value", "refused"), [(65_504.0, False), (1e5, True), (-7e4, True)])
def test_weights_beyond_half_precision_are_refused_by_name(value, refused):
    model = get_task("instance").build(spec_for("instance"))
    with torch.no_grad():
        model.head.bias[1] = value
    if not refused:
        assert float(rounded(model, "float16").head.bias[1].detach()) == value
        return
    with pytest.raises(
        PackageError,
        match=r"^head\.bias holds values beyond float16's 65,504; use model\.precision=float32$",
    ):
        rounded(model, "float16")


def saved(task, folder, spec=None):
    torch.manual_seed(2)
    spec = spec or spec_for(task)
    model = get_task(task).build(spec)
    save_package(folder, model, spec, about={}, measured=exactness(model, spec))
    return model.state_dict()


@pytest.mark.parametrize("task", task_names())
def test_a_network_of_the_same_classes_begins_with_all_weights_of_the_package(task, tmp_path):
    theirs = saved(task, tmp_path / "p")
    torch.manual_seed(3)
    model = get_task(task).build(spec_for(task))
    assert begin_from(model, spec_for(task), tmp_path / "p", build_network) == []
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


OTHER = {
    "one more": (ClassInfo("a", (1, 2, 3)), ClassInfo("b", (4, 5, 6)), ClassInfo("c", (7, 8, 9))),
    "as many of other names": (ClassInfo("x", (1, 2, 3)), ClassInfo("y", (4, 5, 6))),
    "the same in another order": (ClassInfo("b", (4, 5, 6)), ClassInfo("a", (1, 2, 3))),
}


@pytest.mark.parametrize("classes", OTHER)
@pytest.mark.parametrize("task", task_names())
def test_a_network_of_other_classes_keeps_its_own_head_and_takes_the_rest(task, classes, tmp_path):
    theirs = saved(task, tmp_path / "p")
    torch.manual_seed(3)
    spec = replace(spec_for(task), classes=OTHER[classes])
    model = get_task(task).build(spec)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    (note,) = begin_from(model, spec, tmp_path / "p", build_network)
    assert (
        f"knows the classes a, b, this one is to learn {', '.join(spec.class_names)}: the head is "
        "begun anew" in note
    )
    left = [name for name in theirs if name.startswith(HEADS)]
    head = {id(p) for p in model.head.parameters()}
    assert head <= {id(p) for n, p in model.named_parameters() if n in left}
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name] if name in left else theirs[name]), name
    assert len(left) < len(theirs) / 2
    assert not any(name.startswith(("encoder", "decoder", "pyramid", "rpn")) for name in left)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"widths": (4, 6, 10)}, r"model\.widths \(4, 6, 8\), the pipeline \(4, 6, 10\)"),
        ({"task": "semantic"}, r"model\.task instance"),
        ({"unit": "px", "mpp": 1.0}, "works in um, the pipeline in px"),
    ],
)
def test_a_package_of_another_network_is_refused_with_both_sides(changes, named, tmp_path):
    saved("instance", tmp_path / "p")
    spec = replace(spec_for("instance"), **changes)
    model = get_task(spec.task).build(spec)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PackageError, match=named):
        begin_from(model, spec, tmp_path / "p", build_network)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_a_package_was_trained_at_is_told_where_it_is_another(tmp_path):
    saved("instance", tmp_path / "p")
    spec = replace(spec_for("instance"), mpp=0.25, mean=(0.5, 0.5, 0.5))
    mpp, mean = begin_from(get_task("instance").build(spec), spec, tmp_path / "p", build_network)
    assert "was trained at model.mpp 0.5, this one is at 0.25" in mpp
    assert "at model.mean (" in mean
    assert "this one is at (0.5, 0.5, 0.5)" in mean


def test_a_stride_or_a_patch_out_of_step_with_the_network_is_told_with_its_stride():
    spec = spec_for("instance")
    model = get_task("instance").build(spec)
    check_stride(model, spec, patch=64)
    with pytest.raises(
        ConfigError, match=r"train\.patch is 100; it must be a multiple of the network's stride 8"
    ):
        check_stride(model, spec, patch=100)
    with pytest.raises(
        ConfigError, match=r"model\.stride 4 is not a multiple of the network's stride 8"
    ):
        check_stride(
            model, replace(spec, lattice=Lattice(core=64, halo=48, stride=4, shard=128)), patch=64
        )


# -- a full disk, and what JSON cannot hold


def test_a_package_appears_with_all_that_lies_beside_its_weights_or_not_at_all(original, tmp_path):
    _, model, spec = original
    folder = tmp_path / "p"

    def pages(place):
        assert not folder.exists()
        (place / "curves.png").write_bytes(b"curves")

    def full(place):
        with disk(place, at=0, error=NO_ROOM):
            write_file(place / "curves.png", b"curves")

    with pytest.raises(
        WriteError, match=r"p\..*curves.png: cannot be written \(No space left.*\); make room"
    ):
        save_package(folder, model, spec, about={}, extra=full)
    assert not list(tmp_path.iterdir())
    save_package(folder, model, spec, about={}, extra=pages)
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.json",
        "curves.png",
        "weights.safetensors",
    ]
    with pytest.raises(WriteError):
        save_package(folder, model, spec, about={}, extra=full)
    assert (folder / "curves.png").exists(), "what was there before stays"


def test_a_package_on_a_full_disk_is_told_by_its_file(original, tmp_path):
    _, model, spec = original
    with (
        small_files(4096),
        pytest.raises(WriteError, match=r"p\..*weights.*: cannot be written .*make room"),
    ):
        save_package(tmp_path / "p", model, spec, about={})


def test_a_package_is_the_old_one_or_the_new_one_whenever_its_writer_is_killed(original, tmp_path):
    _, model, spec = original
    folder, calls = tmp_path / "p", (*WRITING, *REMOVING)

    def save(license):
        save_package(folder, model, spec, about={"license": license}, measured={})

    whole = {}
    for license in ("new", "old"):
        save(license)
        whole[license] = contents(folder)
    with disk(tmp_path, names=calls) as undisturbed:
        save("new")
    licenses = []
    for at in range(len(undisturbed.calls)):
        save("old")
        with disk(tmp_path, names=calls, at=at, error=Killed()), pytest.raises(Killed):
            save("new")
        licenses.append(read_card(folder)["license"])
        assert contents(folder) == whole[licenses[-1]]
    assert licenses == sorted(licenses, reverse=True)
    assert set(licenses) == {"old", "new"}
    save("new")
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_a_card_holds_no_number_that_is_not_json(original, tmp_path):
    _, model, spec = original
    save_package(
        tmp_path / "p",
        model,
        spec,
        about={"metrics": {"ap": float("nan"), "all": (1.5, float("inf"))}},
    )
    text = (tmp_path / "p" / "card.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"] == {
        "ap": None,
        "all": [1.5, None],
    }
    assert load_package(tmp_path / "p", build_network).card["metrics"]["ap"] is None


def test_the_weights_may_be_read_by_whoever_may_read_the_card(original):
    modes = {path.name: path.stat().st_mode & 0o777 for path in original[0].iterdir()}
    assert modes["weights.safetensors"] == modes["card.json"]
