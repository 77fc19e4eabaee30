"""The longest decode row is followed from step to step, however the steps are taken."""

import numpy as np
import pytest

from simulator.cost_models.base import CostModel
from simulator.simulation import Simulation
from workbench.config import CacheConfig, SchedulerConfig
from workbench.router import RoundRobin
from workbench.step_profile import StepShape
from workbench.workload.base import ListWorkload, WorkloadRequest


class ByLongest(CostModel):
    """Seconds by the longest row, so that a wrong length shifts every later step."""

    wants_longest_decode = True

    def step_time(self, shape: StepShape) -> float:
        if shape.num_decodes:
            assert shape.decode_context <= shape.longest_decode * shape.num_decodes
            assert shape.longest_decode <= shape.decode_context
        else:
            assert not shape.longest_decode
        return 1e-3 + 1e-6 * shape.longest_decode + 1e-7 * shape.num_tokens


def ends(seed: int, is_async: bool, num_blocks: int, fast: bool) -> list[float | None]:
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0, 0.5, 40))
    workload = ListWorkload(
        [
            WorkloadRequest(str(i), float(at), int(p), int(o))
            for i, (at, p, o) in enumerate(
                zip(times, random.integers(1, 300, 40), random.integers(1, 80, 40), strict=True)
            )
        ]
    )
    result = Simulation(
        workload=workload,
        scheduler_config=SchedulerConfig(
            max_num_seqs=16, max_num_batched_tokens=256, max_model_len=1024,
            async_scheduling=is_async,
        ),
        cache_config=CacheConfig(),
        num_blocks=num_blocks,
        cost_model=ByLongest(),
        router=RoundRobin(),
        use_cohort=fast,
        decode_ahead=fast,
    ).run()  # fmt: skip
    return [record.finish_s for record in result.records]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("num_blocks", [60, 2000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steps_in_a_row_and_one_by_one_see_the_same_longest_row(
    seed: int, is_async: bool, num_blocks: int
) -> None:
    one_by_one = ends(seed, is_async, num_blocks, fast=False)
    assert ends(seed, is_async, num_blocks, fast=True) == one_by_one
