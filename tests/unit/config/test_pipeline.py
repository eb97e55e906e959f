from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from quadrat.config.pipeline import (
    Pipeline,
    SlideSection,
    find_pipeline,
    load_pipeline,
    pipeline_schema,
    shipped_pipelines,
)
from quadrat.core.errors import ConfigError
from quadrat.tasks import task_names

INF = float("inf")
LEAST = {"task": "instance", "classes": [{"name": "nucleus"}], "model": {"package": "p"}}
SCHEMA = pipeline_schema()
CHOICES = {
    f"{section}.{key}": value["enum"]
    for section, part in SCHEMA["properties"].items()
    if "$ref" in part
    for key, value in SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]["properties"].items()
    if "enum" in value
}
SHIPPED = sorted(p.stem for p in shipped_pipelines().glob("*.yaml"))


def written(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_pipeline_loads_by_name_and_by_path(name):
    pipeline = load_pipeline(name)
    assert pipeline.task in task_names()
    assert pipeline.name == name
    assert pipeline.description
    assert load_pipeline(str(shipped_pipelines() / f"{name}.yaml")) == pipeline


def test_there_are_shipped_pipelines_for_every_task():
    assert {load_pipeline(name).task for name in SHIPPED} == set(task_names())


def test_what_is_left_out_has_its_default(tmp_path):
    pipeline = load_pipeline(written(tmp_path, LEAST))
    assert isinstance(pipeline, Pipeline)
    assert (pipeline.name, pipeline.folder) == ("mine", str(tmp_path))
    assert (pipeline.model.core, pipeline.train.lr, pipeline.run.cluster) == (512, 3e-3, "local")
    assert pipeline.thresholds == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modle": {}}, "unknown key 'modle'; did you mean 'model'"),
        (
            {"model": {"package": "p", "haloo": 8}},
            "model: unknown key 'haloo'; did you mean 'halo'",
        ),
        ({"train": {"stesp": 8}}, "train: unknown key 'stesp'; did you mean 'steps'"),
        ({"run": {"zzz": 1}}, r"run: unknown key 'zzz' \(known: cluster, "),
        (
            {"classes": [{"name": "a", "colour": [1, 2, 3]}]},
            "unknown key 'colour'; did you mean 'color'",
        ),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_is_named(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        load_pipeline(written(tmp_path, LEAST | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"steps": "many"}}, "train.steps is 'many'; it must be a whole number"),
        ({"train": {"steps": 1.5}}, "train.steps is 1.5; it must be a whole number"),
        ({"train": {"steps": True}}, "train.steps is True; it must be a whole number"),
        ({"train": {"lr": "fast"}}, "train.lr is 'fast'; it must be a number"),
        ({"train": {"lr": True}}, "train.lr is True; it must be a number"),
        ({"train": {"freeze_norm": 1}}, "train.freeze_norm is 1; it must be true or false"),
        ({"train": {"calibrate": "pq"}}, "one of f1, count, none"),
        ({"train": {"steps": None}}, "steps is None"),
        ({"model": "p"}, "model must be a section of keys, not 'p'"),
        ({"model": None}, "model must be a section of keys, not None"),
        ({"model": {"package": "p", "widths": 24}}, "widths must be a list, not 24"),
        (
            {"model": {"package": "p", "widths": ["a"]}},
            r"model.widths\[0\] is 'a'; it must be a whole number",
        ),
        ({"model": {"package": 3}}, "model.package is 3; it must be text"),
        ({"classes": {"a": 1}}, "classes must be a list"),
        ({"classes": ["a"]}, r"classes\[0\] must be a section of keys, not 'a'"),
        ({"thresholds": {"seed": "high"}}, "thresholds.seed is 'high'; it must be a number"),
        ({"thresholds": [1]}, "thresholds must be a section"),
        ({"slide": {"mpp": "fine"}}, "slide.mpp is 'fine'; it must be a number"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_key_and_value(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        load_pipeline(written(tmp_path, LEAST | change))


@pytest.mark.parametrize("key", ["task", "classes", "model"])
def test_a_missing_key_is_named(tmp_path, key):
    with pytest.raises(ConfigError, match=f"the key '{key}' is missing"):
        load_pipeline(written(tmp_path, {k: v for k, v in LEAST.items() if k != key}))


def test_a_missing_key_of_a_section_is_named_with_its_section(tmp_path):
    with pytest.raises(ConfigError, match="model: the key 'package' is missing"):
        load_pipeline(written(tmp_path, LEAST | {"model": {"mpp": 1}}))


@pytest.mark.parametrize("key", CHOICES)
def test_a_choice_outside_the_list_is_refused_and_the_list_is_given(tmp_path, key):
    section, name = key.split(".")

    def loaded(value):
        return load_pipeline(
            written(tmp_path, LEAST | {section: LEAST.get(section, {}) | {name: value}})
        )

    with pytest.raises(
        ConfigError, match=rf"{key} is 'other'; it must be one of .*{CHOICES[key][-1]}"
    ):
        loaded("other")
    for choice in CHOICES[key]:
        assert getattr(getattr(loaded(choice), section), name) == choice


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": []}, "classes must be one or more"),
        ({"classes": [{"name": "a"}, {"name": "a"}]}, "each name once"),
        (
            {"run": {"keep": ["tiles", "all"]}},
            r"run.keep\[1\] is 'all'; it must be one of tiles, predictions",
        ),
        ({"run": {"workers": 0}}, "run.workers is 0; it must be at least 1"),
        ({"train": {"steps": 0}}, "train.steps is 0; it must be at least 1"),
        ({"run": {"batch": 0}}, "run.batch is 0; it must be at least 1"),
        ({"model": {"package": "p", "mpp": 0}}, "model.mpp is 0; it must lie in 0.01 to 1000"),
        (
            {"model": {"package": "p", "dropout": 1}},
            "model.dropout is 1; it must lie in 0 to below 1",
        ),
        (
            {"data": {"point_diameter_um": -3}},
            "data.point_diameter_um is -3; it must lie in 0 to 10000",
        ),
        ({"train": {"seed": -1}}, "train.seed is -1; it must lie in 0 to "),
        ({"train": {"weight_decay": -1}}, "train.weight_decay is -1; it must be at least 0"),
        ({"train": {"weight_decay": INF}}, "train.weight_decay is inf; it must be at least 0"),
        ({"train": {"encoder_lr": -0.5}}, "train.encoder_lr is -0.5; it must be at least 0"),
        ({"train": {"cache_mb": -1}}, "train.cache_mb is -1; it must be at least 0"),
        ({"slide": {"mpp": 0}}, "slide.mpp is 0; it must be above 0"),
        ({"run": {"deadline_s": INF}}, "run.deadline_s is inf; it must be above 0"),
        ({"train": {"checkpoint_every_s": INF}}, "train.checkpoint_every_s is inf; it must be fin"),
        ({"train": {"lr": 0}}, "train.lr is 0; it must be above 0"),
        (
            {"train": {"batch": 4, "processes": 3}},
            r"train.batch is 4; it must be a multiple of train.processes \(3\)",
        ),
        (
            {"run": {"device": "tpu9"}},
            "run.device is 'tpu9'; it must be auto, cpu, mps, cuda, or cuda:N",
        ),
        ({"run": {"device": "cuda:x"}}, "run.device is 'cuda:x'"),
        ({"thresholds": {"seed": 1.5}}, "thresholds.seed is 1.5; it must lie in 0 to 1"),
        (
            {"thresholds": {"min_area_um2": -1}},
            "thresholds.min_area_um2 is -1; it must be at least 0",
        ),
        ({"thresholds": {"cap_um": INF}}, "thresholds.cap_um is inf; it must lie in 1 to 100000"),
        (
            {"thresholds": {"of another task": INF}},
            "thresholds.of another task is inf; it must be finite",
        ),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        load_pipeline(written(tmp_path, LEAST | change))


@pytest.mark.parametrize(
    "key",
    [
        "train.lr",
        "train.augment.blur",
        "thresholds.seed",
        "run.deadline_s",
        "model.mpp",
        "slide.mpp",
    ],
)
@pytest.mark.parametrize("value", [float("nan"), "nan"])
def test_what_is_no_number_is_refused_wherever_a_number_is_read(tmp_path, key, value):
    with pytest.raises(
        ConfigError, match=f"{key.rpartition('.')[2]} is '?nan'?; it must be a number"
    ):
        load_pipeline(written(tmp_path, LEAST), [f"{key}={'.nan' if value != 'nan' else value}"])


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:11"])
def test_devices_are_known_by_name(tmp_path, device):
    assert (
        load_pipeline(written(tmp_path, LEAST | {"run": {"device": device}})).run.device == device
    )


def test_numbers_may_be_written_as_yaml_reads_them(tmp_path):
    text = (
        "task: instance\nclasses: [{name: a}]\nmodel: {package: p, mpp: 1}\ntrain: {lr: "
        "1e-3}\nslide: {mpp: null}\n"
    )
    pipeline = load_pipeline(written(tmp_path, text))
    assert (pipeline.model.mpp, pipeline.train.lr, pipeline.slide.mpp) == (1.0, 0.001, None)
    assert isinstance(pipeline.model.mpp, float)


def test_overrides_are_laid_over_the_file_in_order(tmp_path):
    path = written(tmp_path, LEAST | {"train": {"steps": 5, "lr": 0.1, "warmup": 2}})
    overrides = [
        "train.steps=7",
        "train.steps = 9",
        "thresholds.seed=0.4",
        "run.keep=[tiles]",
        "slide.mpp=0.3",
        "name=x=y",
    ]
    pipeline = load_pipeline(path, overrides)
    assert (pipeline.train.steps, pipeline.train.lr) == (9, 0.1)
    assert (pipeline.thresholds, pipeline.run.keep, pipeline.slide.mpp) == (
        {"seed": 0.4},
        ("tiles",),
        0.3,
    )
    assert pipeline.name == "x=y"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.steps", "write it as section.key=value"),
        ("train.stesp=3", "unknown key 'stesp'; did you mean 'steps'"),
        ("trian.steps=3", "unknown key 'trian'; did you mean 'train'"),
        ("train.steps=many", "steps is 'many'"),
        ("train.steps=", "steps is None"),
        ("task.name=3", "'task' is not a section"),
        ("classes.0=3", "'classes' is not a section"),
        ("=3", "unknown key ''"),
        ("model=3", "model must be a section"),
        ("model.widths=[1, 2", "model.widths"),
        ("model.package=a: b: c", "model.package"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path, override, words):
    with pytest.raises(ConfigError, match=words):
        load_pipeline(written(tmp_path, LEAST), [override])


def test_a_pipeline_that_does_not_exist_is_refused_and_the_nearest_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"did you mean '{SHIPPED[0]}'"):
        find_pipeline(SHIPPED[0] + "s")
    with pytest.raises(ConfigError, match="there is no pipeline file"):
        find_pipeline(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "a: [1", "a: b: c"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_pipeline(written(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"task: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_pipeline(str(tmp_path / "mine.yaml"))


def test_a_pipeline_is_utf8_whatever_the_language_of_the_computer(tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump(LEAST | {"classes": [{"name": "Drüse"}]}, allow_unicode=True),
        encoding="utf-8",
    )
    as_utf8 = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, encoding="latin-1": as_utf8(self, encoding=encoding)
    )
    assert load_pipeline(str(path)).classes[0].name == "Drüse"


def test_a_colour_is_three_values_from_0_to_255(tmp_path):
    for color in ([1, 2], [1, 2, 3, 4], [1, 2, 256], [-1, 2, 3]):
        with pytest.raises(ConfigError, match="color"):
            load_pipeline(written(tmp_path, LEAST | {"classes": [{"name": "a", "color": color}]}))


@pytest.mark.parametrize(
    ("slide", "words"),
    [
        ({"tissue_min_mm2": -1}, r"slide.tissue_min_mm2 is -1; it must lie in 0 to 1000"),
        ({"tissue_fill_um": -1}, r"slide.tissue_fill_um is -1; it must lie in 0 to 1000"),
        ({"tissue_hole_mm2": 1001}, r"slide.tissue_hole_mm2 is 1001; it must lie in 0 to 1000"),
        ({"tissue_threshold": 0}, r"slide.tissue_threshold is 0; it must lie in 0.01 to 1"),
        ({"min_tissue": 2}, r"slide.min_tissue is 2; it must lie in 0 to 1"),
        ({"include": ["Pen"]}, "slide.include and slide.exclude both name pen"),
    ],
)
def test_settings_of_the_mask_that_make_no_sense_are_refused(tmp_path, slide, words):
    with pytest.raises(ConfigError, match=words):
        load_pipeline(written(tmp_path, LEAST | {"slide": slide}))


@pytest.mark.parametrize(
    ("colours", "words"),
    [
        ("{name: celll, color: [1, 2, 3]}", "'celll', which is none of .* did you mean 'cell'"),
        ("{name: cell, color: [1, 2, 300]}", "mask_colours.* is 300; it must lie in 0 to 255"),
        (
            "{name: cell, color: [1, 2, 3]}, {name: none, color: [1, 2, 3]}",
            r"names the colour \[1, 2, 3\] twice; keep one",
        ),
    ],
)
def test_a_table_of_colours_of_a_mask_is_of_classes_and_names_each_colour_once(
    tmp_path, colours, words
):
    whole = yaml.safe_dump(LEAST | {"classes": [{"name": "cell"}]})
    good = written(tmp_path, f"{whole}data: {{mask_colours: [{{name: none, color: [9, 9, 9]}}]}}\n")
    assert load_pipeline(good).data.mask_colours[0].color == (9, 9, 9)
    with pytest.raises(ConfigError, match=words):
        load_pipeline(written(tmp_path, f"{whole}data: {{mask_colours: [{colours}]}}\n"))


def test_all_faults_of_a_file_are_reported_at_once_each_with_its_key(tmp_path):
    text = """
task: instance
classes: [{name: a, colour: [1, 2, 3]}, {name: b, color: [1, 2, 256]}]
model: {package: p, haloo: 8, mpp: 0}
train: {steps: many, batch: 4, processes: 3}
run: {keep: [all], device: tpu}
thresholds: {seed: 2, sed: much}
slid: {}
"""
    with pytest.raises(ConfigError) as refused:
        load_pipeline(written(tmp_path, text))
    first, *lines = str(refused.value).splitlines()
    assert first == f"{tmp_path / 'mine.yaml'}: 10 faults"
    assert sorted(line.strip() for line in lines) == [
        "classes[0]: unknown key 'colour'; did you mean 'color'?",
        "classes[1].color[2] is 256; it must lie in 0 to 255",
        "model.mpp is 0; it must lie in 0.01 to 1000, or be px",
        "model: unknown key 'haloo'; did you mean 'halo'?",
        "run.device is 'tpu'; it must be auto, cpu, mps, cuda, or cuda:N",
        "run.keep[0] is 'all'; it must be one of tiles, predictions",
        "thresholds.sed is 'much'; it must be a number",
        "thresholds.seed is 2; it must lie in 0 to 1",
        "train.steps is 'many'; it must be a whole number",
        "unknown key 'slid'; did you mean 'slide'?",
    ]


@pytest.mark.parametrize("value", ["1e-3", "1E-3", "1.e-3", ".1e-2", "+1e-3", "1.0e-3", "0.001"])
def test_a_number_with_an_exponent_is_a_number_though_yaml_1_1_reads_text(tmp_path, value):
    path = written(tmp_path, yaml.safe_dump(LEAST) + f"train: {{lr: {value}}}\n")
    assert load_pipeline(path).train.lr == 1e-3
    assert load_pipeline(written(tmp_path, LEAST), [f"train.lr={value}"]).train.lr == 1e-3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr: '0.1'", "train.lr is '0.1'; it must be a number"),
        ("steps: '5'", "train.steps is '5'; it must be a whole number"),
        ("init: 5", "train.init is 5; it must be text"),
        ("balance: 'yes'", "train.balance is 'yes'; it must be true or false"),
    ],
)
def test_a_value_is_not_changed_into_the_type_that_is_wanted(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        load_pipeline(written(tmp_path, yaml.safe_dump(LEAST) + f"train: {{{text}}}\n"))


@pytest.mark.parametrize("text", ["? 2020-01-01\n: 3\n", "a: &a [*a]\n"])
def test_yaml_that_no_section_can_hold_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"mine\.yaml: keys must be text"):
        load_pipeline(written(tmp_path, text))


def test_a_section_checks_itself_when_it_is_made_or_replaced_in_python():
    pipeline = load_pipeline(SHIPPED[0])
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        replace(pipeline.run, workers=0)
    with pytest.raises(ValidationError, match="keep one of them"):
        SlideSection(include=("Pen",))


def test_the_schema_knows_what_the_loader_knows():
    keys = SCHEMA["$defs"]["ModelSection"]["properties"]
    number, px = keys["mpp"]["anyOf"]
    assert (number["minimum"], px["const"], keys["mpp"]["unit"]) == (0.01, "px", "um/px")
    assert "folder" not in SCHEMA["properties"]
    assert SCHEMA["required"] == ["task", "classes", "model"]
    parts = [SCHEMA, *SCHEMA["$defs"].values()]
    closed = [part.get("additionalProperties") is False for part in parts]
    assert closed.count(False) == 1  # thresholds, which a task of its own may name as it likes


def in_px(**more):
    return LEAST | {"model": {"package": "p", "mpp": "px"}} | more


def test_work_in_pixels_has_a_unit_a_grid_of_level_0_and_analyses_all(tmp_path):
    pipeline = load_pipeline(written(tmp_path, in_px()))
    assert (pipeline.model.mpp, pipeline.model.unit, pipeline.model.grid_mpp) == ("px", "px", 1.0)
    assert (pipeline.slide.tissue, pipeline.data.tissue) == ("all", "all")
    assert pipeline == load_pipeline(written(tmp_path, in_px()), ["model.mpp=px"])
    micro = load_pipeline(written(tmp_path, LEAST))
    assert (micro.model.unit, micro.model.grid_mpp, micro.slide.tissue) == ("um", 0.5, "auto")
    assert load_pipeline(written(tmp_path, LEAST), ["model.mpp=px"]) == pipeline


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": {"mpp": 0.5}}, r"data\.mpp is 0\.5, but model\.mpp is px: .* leave data\.mpp"),
        ({"slide": {"mpp": 2}}, r"slide\.mpp is 2, but model\.mpp is px"),
        ({"slide": {"tissue": "auto"}}, r"slide\.tissue is auto, but model\.mpp is px"),
        ({"data": {"tissue": "auto"}}, r"data\.tissue is auto, but .* say data\.tissue: all"),
    ],
)
def test_what_is_in_um_is_refused_in_pixel_work(tmp_path, sections, words):
    with pytest.raises(ConfigError, match=words):
        load_pipeline(written(tmp_path, in_px(**sections)))


@pytest.mark.parametrize("value", ["um", "PX", True, [1], None])
def test_another_word_for_the_scale_of_a_model_is_refused(tmp_path, value):
    content = LEAST | {"model": {"package": "p", "mpp": value}}
    with pytest.raises(ConfigError, match=r"model\.mpp is .*; it must be a number, or px"):
        load_pipeline(written(tmp_path, content))


def test_pixel_work_in_python_needs_tissue_all_as_well(tmp_path):
    pipeline = load_pipeline(written(tmp_path, LEAST))
    with pytest.raises(ValidationError, match=r"slide\.tissue is auto"):
        replace(pipeline, model=replace(pipeline.model, mpp="px"))
