"""Timing as far as a CPU can show it: numbers come out, inputs stay as they were."""

import torch

from kernels.measure import Ceilings, measure_ceilings, time_op

CPU = torch.device("cpu")


def test_every_call_gets_inputs_of_its_own_or_the_ones_given() -> None:
    seen: list[float] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        seen.append(float(x[0]))
        return x.add_(1.0)

    timing = time_op(run, {"x": torch.zeros(4)})
    assert seen[0] == 0.0
    assert 0.0 < timing.us_min <= timing.us <= timing.us_max
    assert not timing.is_graph


def test_the_roofline_is_the_slower_of_memory_and_arithmetic() -> None:
    ceilings = Ceilings(copy_bytes_per_s=1e12, matmul_flops_per_s=1e14)
    assert ceilings.floor_us(1_000_000, 0) == 1.0
    assert ceilings.floor_us(1_000_000, 10**9) == 10.0


def test_ceilings_are_measured_dry() -> None:
    ceilings = measure_ceilings(CPU, is_dry_run=True)
    assert ceilings.copy_bytes_per_s > 0
    assert ceilings.matmul_flops_per_s > 0
