"""What a machine computes with, in words."""

import pytest

from quadrat.core import numerics
from quadrat.core.numerics import Numerics, computes_bf16, cpu_extensions, cpu_numerics


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """A processor that says of itself what it is given."""

    def put(line):
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor : 0\n{line}\nprocessor : 1\n")
        monkeypatch.setattr(numerics, "CPUINFO", path)
        computes_bf16.cache_clear()

    yield put
    computes_bf16.cache_clear()


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags : fpu avx2 fma avx512f", False),
        ("flags : fpu avx2 avx512f avx512_bf16", True),
        ("flags : fpu amx_bf16 amx_tile", True),
        ("Features : asimd bf16 i8mm", False),
        ("model name : none that says", False),
    ],
)
def test_a_processor_computes_in_bf16_if_it_has_the_instructions(processor, line, has):
    processor(line)
    assert computes_bf16("cpu") is has
    assert cpu_numerics(1).bf16 is has


def test_the_extensions_are_sorted_and_those_that_no_library_chooses_by_are_left_out(processor):
    processor("flags : sse4_2 fma avx2 avx512_bf16 clflush")
    assert cpu_extensions() == "avx2+avx512_bf16+fma"


def test_a_device_that_torch_has_no_bf16_for_has_none():
    assert computes_bf16("mps") is False


def test_the_words_of_a_run_tell_bf16_from_fp32_and_one_batch_from_another():
    able, unable = Numerics("cpu", "new", bf16=True), Numerics("cpu", "old")
    assert able.of("bf16", batch=1) == Numerics("cpu", "new, bf16", True, "bf16")
    assert able.of("fp32", batch=1) == able
    assert unable.of("bf16", batch=1) == unable
    gpu = Numerics("cuda", "gpu", bf16=True)
    assert gpu.of("bf16", batch=8).text == "gpu, bf16, 8 windows"
    assert gpu.of("fp32", batch=4).text == "gpu, 4 windows"
