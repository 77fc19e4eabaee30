"""What a backend says of its load: read from `/load` of our servers or `/metrics` of vLLM's."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
KV_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
MAX_COUNT = 1 << 53


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """A report.

    Attributes:
        num_running, num_waiting: Requests.
        num_outstanding_tokens: Tokens its requests still need; None: it does not say.
        kv_cache_usage: Share of its KV blocks in use, 0 to 1.
        is_draining: It takes no new requests.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_outstanding_tokens: int | None = None
    kv_cache_usage: float = 0.0
    is_draining: bool = False

    @property
    def num_requests(self) -> int:
        """Running and waiting."""
        return self.num_running + self.num_waiting


def load_from_json(said: Any) -> BackendLoad | None:
    """The report in the body of `/load`; None if it holds none of what is looked for."""
    if not isinstance(said, Mapping) or not {"num_running", "server_load"} & said.keys():
        return None
    tokens = said.get("num_outstanding_tokens")
    # vLLM's own /load holds `server_load` only
    running = said.get("num_running", said.get("server_load"))
    return BackendLoad(
        _count(running),
        _count(said.get("num_waiting")),
        None if tokens is None else _count(tokens),
        _share(said.get("kv_cache_usage")),
        said.get("is_draining") is True,
    )


def load_from_metrics(text: str) -> BackendLoad | None:
    """The report in a Prometheus text with vLLM's names; None if it holds none of them.

    Requests are summed over the engines behind one server, shares are averaged.
    """
    wanted = (RUNNING, WAITING, *KV_USAGE)
    # the histograms of a server are long, and nothing in them is looked for
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    samples: dict[str, list[float]] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample.value)
    except (ValueError, KeyError, IndexError):
        return None
    if RUNNING not in samples:
        return None
    usage = next((samples[name] for name in KV_USAGE if name in samples), [0.0])
    return BackendLoad(
        _count(sum(samples[RUNNING])),
        _count(sum(samples.get(WAITING, []))),
        None,
        _share(sum(usage) / len(usage)),
    )


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return 0
    return int(min(max(value, 0), MAX_COUNT))


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return 0.0
    return float(min(max(value, 0.0), 1.0))
