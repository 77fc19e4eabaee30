"""What a load test will send: the workload, and the limits of good service.

Knows how flags and the groups of `conf/` become one workload. Sends nothing.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

from omegaconf import OmegaConf

from experiments.assemble import part
from experiments.bench.arrivals import ArrivalSettings
from experiments.bench.settings import NUM_PROMPTS, BenchSettings, RandomRequests
from experiments.instantiate import build
from experiments.run import compose_config
from experiments.schema import settings as group_settings
from workbench.errors import ConfigError
from workbench.metrics import SLO
from workbench.workload.arrivals import Arrivals
from workbench.workload.base import ListWorkload, Workload
from workbench.workload.synthetic import Stream, random_streams

ARRIVALS = "workbench.workload.arrivals."
LENGTHS = "workbench.workload.lengths.UniformLengths"
KEPT = ("workload", "slo", "seed", "traces_dir")


@dataclass(frozen=True, slots=True)
class Plan:
    """A load to be sent.

    Attributes:
        workload: The requests.
        slo: What counts as good.
        seed: Of everything that is drawn.
        is_as_fast_as_possible: The workload's times mean nothing.
        config: What it was made of, as a run folder keeps it.
    """

    workload: Workload
    slo: SLO
    seed: int
    is_as_fast_as_possible: bool
    config: dict[str, Any]


def make_plan(settings: BenchSettings) -> Plan:
    """The plan. Raises ConfigError and Hydra's errors for overrides that make no config."""
    config = compose_config(_overrides(settings))
    if settings.uses_workload:
        workload: Workload = part(config, "workload")
        if settings.arrivals is not None:
            workload = _at_other_times(workload, settings.arrivals, config.seed)
    else:
        arrivals = settings.arrivals or ArrivalSettings()
        number = _num_requests(settings, arrivals)
        node = OmegaConf.create(random_workload(settings.random, arrivals, number, config.seed))
        OmegaConf.set_struct(config, False)
        config.workload = node
        workload = build(node, "workload", Workload)
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    kept = {name: plain[name] for name in KEPT}
    slo: SLO = group_settings(config, "slo") if settings.slo is None else settings.slo
    kept["slo"] = {name: getattr(slo, name) for name in ("ttft_s", "tpot_s", "e2e_s")}
    return Plan(
        workload=workload,
        slo=slo,
        seed=config.seed,
        is_as_fast_as_possible=settings.arrivals is not None and settings.arrivals.is_unlimited,
        config=kept,
    )


def _overrides(settings: BenchSettings) -> list[str]:
    overrides = list(settings.overrides)
    if settings.seed is not None:
        overrides.append(f"seed={settings.seed}")
    if not any(o.startswith("slo") for o in overrides):
        overrides.append("slo=none")  # limits that nobody has asked for are no news
    return overrides


def random_workload(
    lengths: RandomRequests, arrivals: ArrivalSettings, num_requests: int, seed: int
) -> dict[str, Any]:
    """The node of a workload of random requests, as one of `conf/workload` would have it."""
    low_in, high_in = lengths.bounds(lengths.input_len)
    low_out, high_out = lengths.bounds(lengths.output_len)
    sharing = None
    if lengths.prefix_len:
        sharing = {
            "_target_": "workbench.workload.sharing.SystemPrompts",
            "num_prefixes": 1,
            "prefix_length": lengths.prefix_len,
            "block_size": 1,
        }
    return {
        "_target_": "workbench.workload.synthetic.SyntheticWorkload",
        "_convert_": "all",
        "num_requests": num_requests,
        "seed": seed,
        "arrivals": _arrivals_node(arrivals),
        "prompt_lengths": {"_target_": LENGTHS, "low": low_in, "high": high_in},
        "output_lengths": {"_target_": LENGTHS, "low": low_out, "high": high_out},
        "sharing": sharing,
    }


def _num_requests(settings: BenchSettings, arrivals: ArrivalSettings) -> int:
    if settings.num_prompts is not None:
        return settings.num_prompts
    if settings.duration_s is not None:
        return arrivals.enough_for(settings.duration_s)
    return NUM_PROMPTS


def _arrivals_node(arrivals: ArrivalSettings) -> dict[str, Any]:
    if arrivals.ramp is not None:
        return {
            "_target_": "experiments.bench.arrivals.RampOverRequests",
            "start_rate": arrivals.ramp_start,
            "end_rate": arrivals.ramp_end,
            "shape": arrivals.ramp,
            "burstiness": arrivals.burstiness,
        }
    if arrivals.is_unlimited:
        return {"_target_": f"{ARRIVALS}BatchArrivals"}
    return {
        "_target_": f"{ARRIVALS}GammaArrivals",
        "rate": arrivals.request_rate,
        "burstiness": arrivals.burstiness,
    }


def _at_other_times(workload: Workload, arrivals: ArrivalSettings, seed: int) -> Workload:
    """The requests of an open loop, sent when the flags say. Raises ConfigError for others."""
    if not workload.is_open_loop:
        raise ConfigError(
            "--request-rate cannot be had with this workload, whose requests follow one another:"
            " change workload.arrivals or workload.rate_scale instead"
        )
    process: Arrivals = arrivals.process()
    rng = random_streams(seed)[Stream.ARRIVALS]
    times = process.times(workload.num_requests, rng).tolist()
    return ListWorkload(
        [
            replace(
                item,
                arrival_time=time,
                deadline=None
                if item.deadline is None
                else item.deadline + time - item.arrival_time,
            )
            for item, time in zip(workload.initial(), times, strict=True)
        ]
    )


def longest(workload: Workload, most: int) -> int:
    """Tokens of the longest of the first requests, prompt and answer."""
    lengths = (
        item.num_prompt_tokens + item.num_output_tokens
        for item, _ in zip(workload.initial(), range(most), strict=False)
    )
    return max(lengths, default=0)
