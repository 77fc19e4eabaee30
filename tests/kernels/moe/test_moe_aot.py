"""What the compiler makes of the kernels of mixtures of experts: the gates that need no GPU."""

from kernels.aot import SHARED_LIMITS
from tests.kernels.compiled import reports

SELECTED = [
    f"moe.{op}/qwen3-16-tokens@{target}" for op in ("route", "align") for target in SHARED_LIMITS
]
KERNELS = {"_route_kernel", "_count_kernel", "_place_kernel", "_order_kernel"}


def test_every_kernel_compiles_for_every_target_and_nothing_spills() -> None:
    rows = reports(SELECTED)
    seen = {(row["kernel"], row["target"]) for row in rows}
    assert seen == {(kernel, target) for kernel in KERNELS for target in SHARED_LIMITS}
    assert [row for row in rows if row["spills"]] == []
    assert max(row["shared"] for row in rows) <= 65_536
