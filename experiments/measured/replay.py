"""A measured run, replayed in the simulator: the same requests at the same times.

Knows how measured and simulated times are made comparable. A server takes requests in between two
steps; their clock (TTFT, E2E) starts there, measured and simulated. The simulated server takes a
request in at the end of the step that runs when the request reaches its door, so a boundary that
is simulated a millisecond early does not cost the request a whole step.
"""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.measured.balancer import DataParallelBalancer
from experiments.measured.prices import Prices
from experiments.measured.run_files import MeasuredRun
from experiments.measured.system import System
from experiments.tables import requests_frame, steps_frame
from simulator.cluster import ClusterConfig
from simulator.simulation import Simulation
from workbench.workload.base import ListWorkload


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the simulation says.

    Attributes:
        requests, steps: As in requests.parquet and steps.parquet, on the clock of the measured run.
        counters: Of the run: preemptions, prefix hits, extrapolated steps.
        seconds: What the simulation took, seconds.
    """

    requests: pd.DataFrame
    steps: pd.DataFrame
    counters: dict[str, float]
    seconds: float


def replay(run: MeasuredRun, system: System, prices: Prices, workload: ListWorkload) -> Replayed:
    """Simulate the run."""
    started = time.perf_counter()
    simulation = Simulation(
        workload=workload,
        scheduler_config=system.scheduler,
        cache_config=system.cache,
        num_blocks=system.num_blocks,
        cost_model=prices.cost_model,
        router=DataParallelBalancer(),
        cluster_config=ClusterConfig(replicas=system.replicas, lock_step=system.lock_step),
        pipeline_parallel_size=system.parallel.pipeline_parallel_size,
    )
    result = simulation.run()
    seconds = time.perf_counter() - started
    start = float(run.requests["door_s"].min())
    requests, steps = requests_frame(result.records), steps_frame(result.steps)
    for name in ("arrival_s", "first_scheduled_s", "first_token_s", "finish_s"):
        requests[name] += start
    steps["start_s"] += start
    return Replayed(_taken_in(requests, steps), steps, dict(result.counters), seconds)


def _taken_in(requests: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """The requests with `arrival_s` when their server took them in, between two of its steps."""
    taken = requests["arrival_s"].to_numpy(dtype=np.float64).copy()
    scheduled = requests["first_scheduled_s"].to_numpy(dtype=np.float64)
    replica = requests["replica"].to_numpy()
    for number in np.unique(replica):
        mine = replica == number
        its = steps[steps["replica"] == number]
        ends = np.sort((its["start_s"] + its["duration_s"]).to_numpy(dtype=np.float64))
        following = np.append(ends, np.inf)[np.searchsorted(ends, taken[mine] - 1e-9)]
        # a server that idles takes a request in when it comes
        taken[mine] = np.fmin(following, np.fmax(scheduled[mine], taken[mine]))
    times = {"arrival_s": taken, "door_s": requests["arrival_s"]}
    return requests.assign(**times).drop(
        columns=["queue_s", "ttft_s", "tpot_s", "e2e_s", "normalized_latency_s"]
    )
