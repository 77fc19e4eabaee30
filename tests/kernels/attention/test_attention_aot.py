"""What the compiler makes of the attention kernels: the gates that need no GPU."""

from typing import Any

import pytest

from kernels.aot import SHARED_LIMITS
from tests.kernels.compiled import reports

HOPPER = [
    f"attention.{case}@cuda:90"
    for case in (
        "paged_prefill/gqa",
        "paged_prefill/fp8",
        "paged_prefill/head-dim-80",
        "paged_prefill/head-dim-256",
        "paged_decode/gqa",
        "paged_decode/fp8",
        "paged_decode/verify",
        "paged_decode/head-dim-256",
        "merge_states/128",
    )
]
OTHERS = [
    f"attention.{case}@{target}"
    for target in ("cuda:80", "cuda:100", "hip:gfx942")
    for case in ("paged_prefill/gqa", "paged_decode/gqa", "merge_states/128")
]

Reports = list[dict[str, Any]]


@pytest.fixture(scope="module")
def compiled() -> Reports:
    """All kernels, compiled once."""
    return reports(HOPPER + OTHERS)


def test_every_kernel_compiles_for_every_target(compiled: Reports) -> None:
    kernels = {"_decode_kernel", "_merge_parts_kernel", "prefill_kernel", "_merge_states_kernel"}
    seen = {(row["kernel"], row["target"]) for row in compiled}
    assert seen == {(kernel, target) for kernel in kernels for target in SHARED_LIMITS}


def test_nothing_spills(compiled: Reports) -> None:
    assert {row["kernel"]: row["spills"] for row in compiled if row["spills"]} == {}


def test_shared_memory_is_within_the_limit(compiled: Reports) -> None:
    for row in compiled:
        assert row["shared"] <= SHARED_LIMITS[row["target"]], row


def test_prefill_uses_warp_group_matrix_instructions(compiled: Reports) -> None:
    prefill = _hopper(compiled, "prefill_kernel")
    assert prefill
    assert all(row["hgmma"] > 0 for row in prefill)


def test_keys_and_values_are_copied_by_16_bytes(compiled: Reports) -> None:
    for row in _hopper(compiled, "prefill_kernel") + _hopper(compiled, "_decode_kernel"):
        assert row["copies_16"] > 0, row
        # a float8 tile is laid out for the type that it is multiplied in: 8 bytes a thread
        assert row["copies_small"] == 0 or row["case"].startswith("fp8"), row


def test_keys_and_values_have_two_buffers_or_more(compiled: Reports) -> None:
    for row in _hopper(compiled, "prefill_kernel") + _hopper(compiled, "_decode_kernel"):
        assert row["buffers"] >= 2, row


def _hopper(compiled: Reports, kernel: str) -> Reports:
    return [row for row in compiled if row["kernel"] == kernel and row["target"] == "cuda:90"]
