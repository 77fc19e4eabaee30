"""What a load test is asked to do, checked.

Knows the words of the command line and what contradicts what. Opens no file and no connection.
"""

import argparse
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.bench.arrivals import ArrivalSettings
from experiments.bench.request_body import CHAT, COMPLETIONS
from experiments.bench.target import Target
from experiments.bench.vllm_names import METRICS
from workbench.errors import ConfigError
from workbench.metrics import SLO

NUM_PROMPTS = 100
API_KEY = "OPENAI_API_KEY"
LIMITS = {"ttft": "ttft_s", "tpot": "tpot_s", "e2el": "e2e_s"}
SECRET = ("api_key", "header")


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomRequests:
    """Lengths of random requests, in tokens; `spread` is the share by which they vary."""

    input_len: int = 256
    output_len: int = 64
    spread: float = 0.0
    prefix_len: int = 0

    def __post_init__(self) -> None:
        for flag, length in (("input", self.input_len), ("output", self.output_len)):
            if length < 1:
                raise ConfigError(f"--random-{flag}-len {length} must be at least 1")
        if self.prefix_len < 0:
            raise ConfigError(f"--random-prefix-len {self.prefix_len} must be at least 0")
        if not 0 <= self.spread < 1:
            raise ConfigError(f"--random-range-ratio {self.spread:g} must be in [0, 1)")

    @classmethod
    def of(cls, options: argparse.Namespace) -> "RandomRequests":
        """From the --random-… flags of a command line."""
        return cls(
            input_len=options.random_input_len,
            output_len=options.random_output_len,
            spread=options.random_range_ratio,
            prefix_len=options.random_prefix_len,
        )

    def bounds(self, length: int) -> tuple[int, int]:
        """(shortest, longest) of lengths around this one."""
        return (
            max(math.floor(length * (1 - self.spread)), 1),
            math.ceil(length * (1 + self.spread)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """One load test. The flags of the command line say what each means."""

    target: Target
    endpoint: str
    model: str | None
    api_key: str | None
    headers: dict[str, str]
    is_verified: bool
    timeout_s: float
    ready_s: float
    arrivals: ArrivalSettings | None
    max_concurrency: int | None
    num_prompts: int | None
    duration_s: float | None
    num_warmups: int
    seed: int | None
    random: RandomRequests
    ignore_eos: bool
    tokenizer: str | None
    as_text: bool
    vocab_size: int | None
    with_token_ids: bool
    params: dict[str, Any]
    slo: SLO | None
    metrics: tuple[str, ...]
    percentiles: tuple[float, ...]
    overrides: tuple[str, ...]
    flags: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--max-concurrency", self.max_concurrency, 1),
            ("--num-prompts", self.num_prompts, 1),
            ("--num-warmups", self.num_warmups, 0),
            ("--seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{name} {value} must be at least {least}")
        for name, seconds in (("--duration", self.duration_s), ("--timeout", self.timeout_s)):
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"{name} {seconds:g} must be above 0")
        if self.duration_s is not None and math.isinf(self.duration_s):
            raise ConfigError("--duration inf has no end: give seconds, or --num-prompts instead")
        if self.is_chat and not self.as_text:
            raise ConfigError("--prompts ids: a chat takes text only; leave the flag out")
        unlimited = self.arrivals is not None and self.arrivals.is_unlimited
        if unlimited and self.duration_s and not (self.max_concurrency or self.num_prompts):
            raise ConfigError(
                "--duration without --request-rate would send without end: add --max-concurrency,"
                " --request-rate or --num-prompts"
            )

    @property
    def is_chat(self) -> bool:
        return self.endpoint.endswith("/chat/completions")

    @property
    def uses_workload(self) -> bool:
        """Whether the requests are those of a workload of the project."""
        return any(o.lstrip("+~").split("=")[0].split(".")[0] == "workload" for o in self.overrides)


def settings_of(options: argparse.Namespace) -> BenchSettings:
    """The settings of a parsed command line. Raises ConfigError."""
    limits, words = _parted(options.goodput)
    overrides = (*options.overrides, *words)
    endpoint = options.endpoint or (CHAT if options.backend == "openai-chat" else COMPLETIONS)
    is_chat = endpoint.endswith("/chat/completions")
    own_times = any(o.startswith("workload") for o in overrides)
    flags = {k: v for k, v in vars(options).items() if k not in (*SECRET, "overrides")}
    return BenchSettings(
        target=Target.of(options.base_url or f"http://{options.host}:{options.port}"),
        endpoint=endpoint,
        model=options.served_model_name or options.model,
        api_key=options.api_key or os.environ.get(API_KEY),
        headers=_pairs("--header", options.header),
        is_verified=not options.insecure,
        timeout_s=options.timeout,
        ready_s=options.ready_check_timeout_sec,
        arrivals=_arrivals(options, own_times),
        max_concurrency=options.max_concurrency,
        num_prompts=options.num_prompts,
        duration_s=options.duration,
        num_warmups=options.num_warmups,
        seed=options.seed,
        random=RandomRequests.of(options),
        ignore_eos=options.ignore_eos,
        tokenizer=options.tokenizer,
        as_text=is_chat if options.prompts is None else options.prompts == "text",
        vocab_size=options.vocab_size,
        with_token_ids=options.return_token_ids,
        params=_params(options),
        slo=_slo(limits),
        metrics=_metrics(options.percentile_metrics),
        percentiles=_percentiles(options.metric_percentiles),
        overrides=overrides,
        flags=flags | {"metadata": _pairs("--metadata", options.metadata)},
    )


def _parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(limits, overrides that followed them on the command line). Raises ConfigError."""
    for word in words:
        name, sign, value = word.partition("=")
        if sign and name in LIMITS:
            raise ConfigError(f"--goodput {word}: write --goodput {name}:{value}")
    limits = [word for word in words if "=" not in word]
    return limits, [word for word in words if "=" in word]


def _arrivals(options: argparse.Namespace, own_times: bool) -> ArrivalSettings | None:
    """When to send; None: when the workload says."""
    rate, ramp = options.request_rate, options.ramp_up_strategy
    if own_times and rate is None and ramp is None:
        if options.burstiness != 1.0:
            raise ConfigError("--burstiness needs --request-rate: the workload has its own times")
        return None
    return ArrivalSettings(
        request_rate=math.inf if rate is None else rate,
        burstiness=options.burstiness,
        ramp=ramp,
        ramp_start=options.ramp_up_start_rps,
        ramp_end=options.ramp_up_end_rps,
    )


def _pairs(flag: str, words: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"{flag} {word}: write KEY=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


def _params(options: argparse.Namespace) -> dict[str, Any]:
    """Sampling parameters and further fields of the body."""
    names = ("temperature", "top_p", "top_k")
    params = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    if options.extra_body is None:
        return params
    try:
        extra = json.loads(options.extra_body)
    except ValueError as error:
        raise ConfigError(f"--extra-body is no JSON ({error})") from None
    if not isinstance(extra, dict):
        raise ConfigError("--extra-body must be a JSON object: '{\"top_p\": 0.9}'")
    return params | extra


def _slo(words: Sequence[str]) -> SLO | None:
    limits = {}
    for word in words:
        name, _, value = word.partition(":")
        if name not in LIMITS:
            raise ConfigError(f"--goodput {word}: write NAME:MS with NAME of {', '.join(LIMITS)}")
        try:
            limits[LIMITS[name]] = float(value) / 1e3
        except ValueError:
            raise ConfigError(f"--goodput {word}: {value!r} is no number of ms") from None
    return SLO(**limits) if limits else None


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"--percentile-metrics {name}: use some of {','.join(METRICS)}")
    return names


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--metric-percentiles {text}: write numbers, 50,90,99") from None
    for value in values:
        if not 0 <= value <= 100:
            raise ConfigError(f"--metric-percentiles {value:g} must be in 0 to 100")
    return values
