"""The memory that the chunked loss promises, measured in processes of their own."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "itc_memory.py"
    spec = importlib.util.spec_from_file_location("itc_memory", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_chunks_need_a_fraction_of_the_full_matrix(benchmark):
    found = benchmark.compare(batch=4096, dimension=16, chunk=128)
    matrix = 4096 * 4096 * 4
    assert found["full matrix"]["peak"] > 2 * matrix, "the measurement misses the matrix: it measures nothing"
    # 6 to 17 MB in five runs, most of it libraries' buffers that come and go; a stray (B, B) would take 67.
    assert found["chunked"]["peak"] < matrix / 2
    assert max(found["chunked"]["error"].values()) < 1e-5


@pytest.mark.slow
def test_full_size_needs_at_most_a_tenth(benchmark):
    found = benchmark.compare(batch=16_384, dimension=256)
    assert found["chunked"]["peak"] <= 0.1 * found["full matrix"]["peak"]
    assert max(found["chunked"]["error"].values()) < 1e-5
