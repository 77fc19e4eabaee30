"""What the compiler makes of the sampling kernels: the gates that need no GPU."""

from typing import Any

import pytest

from kernels.aot import SHARED_LIMITS
from tests.kernels.compiled import reports

SELECTED = [
    *(f"sampling.top_k_top_p_sample/128k@{target}" for target in SHARED_LIMITS),
    "sampling.top_k_top_p_sample/128k-bf16@cuda:90",
    "sampling.token_logprobs/128k@cuda:90",
]
KERNELS = {"_group_stats_kernel", "_threshold_kernel", "_gumbel_kernel", "_join_kernel"}

Reports = list[dict[str, Any]]


@pytest.fixture(scope="module")
def compiled() -> Reports:
    """All kernels, compiled once."""
    return reports(SELECTED)


def test_every_kernel_compiles_for_every_target(compiled: Reports) -> None:
    seen = {(row["kernel"], row["target"]) for row in compiled}
    everywhere = {(name, target) for name in KERNELS for target in SHARED_LIMITS}
    assert seen == everywhere | {("_logprobs_kernel", "cuda:90")}


def test_nothing_spills(compiled: Reports) -> None:
    assert [row for row in compiled if row["spills"]] == []


def test_shared_memory_leaves_room_for_other_programs(compiled: Reports) -> None:
    assert max(row["shared"] for row in compiled) <= 32_768


def test_the_search_reads_ahead(compiled: Reports) -> None:
    rows = [row for row in compiled if row["kernel"] == "_threshold_kernel"]
    hopper = [row for row in rows if row["target"] == "cuda:90"]
    assert hopper
    assert all(row["buffers"] >= 2 and row["copies_16"] > 0 for row in hopper)
