"""From a workload to requests for a server: real tokens, and times that make a given load.

Knows workloads and tokens. The simulator gets the same requests with the same tokens, so that both
find the same prefixes.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from engine.workload_tokens import WorkloadTokens
from experiments.live_vllm.client import Ask
from experiments.live_vllm.probes import Probe
from workbench.errors import WorkloadError
from workbench.workload.base import Workload, WorkloadRequest

FIRST_TOKEN = 3  # ids below are special in the random model's vocabulary


def shapes_of(workload: Workload, max_model_len: int) -> list[WorkloadRequest]:
    """The requests of an open loop. Raises WorkloadError where a server cannot take them."""
    if not workload.is_open_loop:
        raise WorkloadError(
            "this workload sets requests off by the end of others, and a live server's requests are"
            " sent at given times: choose an open-loop workload, such as workload=live_vllm"
        )
    items = list(workload.initial())
    longest = max(items, key=_length)
    if _length(longest) > max_model_len:
        raise WorkloadError(
            f"request {longest.request_id!r} has {_length(longest)} tokens, and the server takes"
            f" {max_model_len}: shorten the workload's lengths or raise vllm.max_model_len"
        )
    return items


def _length(item: WorkloadRequest) -> int:
    return item.num_prompt_tokens + item.num_output_tokens


def parts_of(items: Sequence[WorkloadRequest], number: int) -> list[Sequence[WorkloadRequest]]:
    """So many runs of consecutive requests. Raises WorkloadError if there are too few."""
    if len(items) < 2 * number:
        raise WorkloadError(
            f"{len(items)} requests are too few for {number} parts of at least 2: raise"
            " workload.num_requests or lower vllm.parts"
        )
    bounds = [len(items) * i // number for i in range(number + 1)]
    parts = [items[start:end] for start, end in pairwise(bounds)]
    for part in parts:
        if part[-1].arrival_time <= part[0].arrival_time:
            raise WorkloadError("a load needs requests at different times: choose another workload")
    return parts


def at_rate(
    items: Sequence[WorkloadRequest], rate: float, name: str, vocab_size: int, seed: int
) -> list[WorkloadRequest]:
    """The requests at this many a second on average, with tokens of their own and ids NAME-N."""
    start, end = items[0].arrival_time, items[-1].arrival_time
    scale = (len(items) - 1) / (rate * (end - start))
    tokens = WorkloadTokens(vocab_size - FIRST_TOKEN, seed)
    return [
        replace(
            item,
            request_id=f"{name}-{number}",
            arrival_time=(item.arrival_time - start) * scale,
            prompt_token_ids=tuple(token + FIRST_TOKEN for token in tokens.prompt(item)),
            hash_ids=None,
            output_hash_ids=None,
        )
        for number, item in enumerate(items)
    ]


def of_probe(
    probe: Probe, name: str, tokens: WorkloadTokens, unit_s: float
) -> list[WorkloadRequest]:
    """A probe's requests with ids NAME-N; only they share its prefix. `unit_s`: see `Shape`."""
    prefix = tokens.prompt(WorkloadRequest(f"{name}-prefix", 0.0, probe.shared, 1))
    items = [
        WorkloadRequest(f"{name}-{i}", shape.send_at * unit_s, shape.prompt, shape.output)
        for i, shape in enumerate(probe.shapes)
    ]
    return [replace(item, prompt_token_ids=_prompt(prefix, tokens.prompt(item))) for item in items]


def _prompt(prefix: Sequence[int], own: Sequence[int]) -> tuple[int, ...]:
    """A prompt as long as `own` that begins with a prefix."""
    return tuple(token + FIRST_TOKEN for token in (*prefix, *own[len(prefix) :]))


def asks(items: Sequence[WorkloadRequest]) -> list[Ask]:
    """What the client sends."""
    return [
        Ask(item.request_id, item.prompt_token_ids or (), item.num_output_tokens, item.arrival_time)
        for item in items
    ]
