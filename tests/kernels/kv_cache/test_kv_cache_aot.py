"""What the compiler makes of the KV-cache kernels: the gates that need no GPU."""

from typing import Any

import pytest

from kernels.aot import SHARED_LIMITS
from tests.kernels.compiled import reports

WRITE, COPY = "kv_cache.rotary_cache_write", "kv_cache.block_copy"
SELECTED = [
    *(f"{WRITE}/llama-8b@{target}" for target in SHARED_LIMITS),
    *(f"{COPY}/llama-8b@{target}" for target in SHARED_LIMITS),
    *(f"{WRITE}/{case}@cuda:90" for case in ("llama-8b-float8", "llama-70b", "qwen2-7b")),
    f"{WRITE}/llama-8b-float8@cuda:80",
]

Reports = list[dict[str, Any]]


@pytest.fixture(scope="module")
def compiled() -> Reports:
    """All kernels, compiled once."""
    return reports(SELECTED)


def test_every_kernel_compiles_for_every_target_and_nothing_spills(compiled: Reports) -> None:
    rows = [row for row in compiled if "refused" not in row]
    kernels = {"_rotary_cache_write_kernel", "_move_kernel"}
    seen = {(row["kernel"], row["target"]) for row in rows}
    assert seen == {(kernel, target) for kernel in kernels for target in SHARED_LIMITS}
    assert [row for row in rows if row["spills"] or row["shared"]] == []


def test_float8_is_refused_where_it_cannot_be_converted(compiled: Reports) -> None:
    refused = [row for row in compiled if "refused" in row]
    assert [row["target"] for row in refused] == ["cuda:80"]
    assert "float8_e4m3fn" in refused[0]["refused"]
