"""One simulation of a configuration at one rate, and what is to be known of it.

Knows how a rate is given to a workload: by `rate_scale`, which divides the arrival times. So every
rate sees the same requests in the same order with the same gaps, only faster or slower (common
random numbers), and two rates differ by the rate and by nothing else. Knows no objective: a probe
keeps every statistic that one can name.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.assemble import Assembly, part
from experiments.capacity.objectives import statistics
from experiments.capacity.steadiness import backlog
from workbench.errors import ConfigError
from workbench.metrics import RequestColumns, RunResult

Record = dict[str, Any]
LIFETIMES = 3.0  # of the longest conversation; so long conversations must begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What arrives at `rate_scale` 1.

    Attributes:
        rate: Arrivals a second: the rate of the process where it has one, else the mean.
        arrivals: "requests", or "conversations" where a request sets off the next one.
        requests: Requests in all.
        last_start_s: When the last request or conversation comes.
    """

    rate: float
    arrivals: str
    requests: int
    last_start_s: float


def load_of(config: DictConfig) -> Load:
    """The load of the config's workload. Raises ConfigError if it has no rate to be scaled."""
    scale = OmegaConf.select(config, "workload.rate_scale")
    if scale is None:
        raise ConfigError(
            "workload: it has no rate_scale, by which a rate is set: choose another workload"
        )
    if scale != 1:
        raise ConfigError(
            f"workload.rate_scale={scale}: the search sets it itself: give workload.rate_scale=1"
        )
    workload = part(_scaled(config, 1.0), "workload")
    times = [request.arrival_time for request in workload.initial()]
    span = times[-1] - times[0] if times else 0.0
    closed = str(OmegaConf.select(config, "workload.arrivals._target_")).endswith(
        "ClosedLoopArrivals"
    )
    if closed or span <= 0:
        raise ConfigError(
            "workload: its requests come all at once or when others end, and so have no rate: "
            "choose one with arrivals over time, e.g. workload=default"
        )
    nominal = OmegaConf.select(config, "workload.arrivals.rate")
    rate = float(nominal) if nominal else (len(times) - 1) / span
    return Load(
        rate=rate,
        arrivals="requests" if workload.is_open_loop else "conversations",
        requests=workload.num_requests,
        last_start_s=times[-1],
    )


def _scaled(config: DictConfig, scale: float) -> DictConfig:
    """The config with its arrivals so many times as fast."""
    copy = config.copy()
    OmegaConf.update(copy, "workload.rate_scale", scale)
    return copy


def run_probe(assembly: Assembly, load: Load, scale: float, warmup: float) -> Record:
    """Simulates the configuration with its arrivals `scale` times as fast as the workload says.

    The record is ready for JSON. Objectives look at the requests after the `warmup` share, tokens
    are counted from the first of these to the last arrival.

    Of conversations, only the time is looked at in which as many go on as in a steady state: from
    when the first ones have ended to when the last one begins. `too_short` says that this is less
    than two thirds of the time, so that a rate which passes has not shown that it is sustained.
    """
    started = time.process_time()
    run = replace(assembly, config=_scaled(assembly.config, scale)).start()
    record = _record(run.run(), assembly, load.last_start_s / scale, warmup)
    return {"scale": scale, **record, "cpu_s": time.process_time() - started}


def _record(result: RunResult, assembly: Assembly, end: float, warmup: float) -> Record:
    requests = RequestColumns.from_records(result.records)
    arrivals = np.sort(requests.arrival_s)
    follows_s = max(float(arrivals[-1]) - end, 0.0)  # the last requests of the last conversations
    span = max(end - float(arrivals[0]), 0.0)
    start = max(float(arrivals[int(warmup * len(arrivals))]), float(arrivals[0]) + follows_s)
    too_short = LIFETIMES * follows_s > span
    window = (requests.arrival_s >= (arrivals[0] if too_short else start)) & _until(requests, end)
    held_up = backlog(
        requests.arrival_s[_until(requests, end)], requests.finish_s[_until(requests, end)]
    )
    return {
        "requests": len(requests),
        "measured_requests": int(window.sum()),
        "unanswered": int((~requests.completed[window]).sum()),
        "arrivals_s": span,
        "follows_s": follows_s,
        "too_short": too_short,
        **_tokens(requests, float(arrivals[0]) if too_short else start, end),
        **statistics(requests, window, assembly.slo),
        "backlog_early": held_up.early,
        "backlog_late": held_up.late,
        "backlog_growth": held_up.growth,
        "backlog_noise": held_up.noise,
        "preemptions": int(requests.preemptions.sum()),
        "extrapolated_steps": int(result.counters.get("extrapolated_steps", 0)),
        "prefix_hit_rate": _hit_rate(result),
    }


def _until(requests: RequestColumns, end: float) -> NDArray[np.bool_]:
    """The requests that came up to a time, rounding allowed for."""
    mask: NDArray[np.bool_] = requests.arrival_s <= end * (1 + 1e-9)
    return mask


def _tokens(requests: RequestColumns, start: float, end: float) -> Record:
    """Tokens and requests a second while requests arrive, after the warm-up."""
    span = end - start
    if span <= 0:
        return {"output_tokens_per_s": None, "total_tokens_per_s": None, "requests_per_s": None}
    times = requests.token_times_s
    outputs = int(((times >= start) & (times <= end)).sum())
    first = requests.first_token_s
    answered = (first >= start) & (first <= end)
    prompts = int(requests.prompt_tokens[answered].sum())
    finished = requests.completed & (requests.finish_s >= start) & (requests.finish_s <= end)
    return {
        "output_tokens_per_s": outputs / span,
        "total_tokens_per_s": (outputs + prompts) / span,
        "requests_per_s": int(finished.sum()) / span,
    }


def _hit_rate(result: RunResult) -> float | None:
    queried = result.counters.get("prefix_queries_tokens", 0.0)
    return result.counters.get("prefix_hit_tokens", 0.0) / queried if queried else None
