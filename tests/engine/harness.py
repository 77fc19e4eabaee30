"""Runs an engine core on a tiny checkpoint without any front: requests in, token ids out.

Stands where the LLM class will: it makes requests, drives the core's steps and collects tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.build import EngineParts, Policies, build_engine_core
from engine.config import EngineConfig
from engine.executor import InlineExecutor
from workbench.config import CacheConfig, SchedulerConfig
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.outputs import ModelRunnerOutput
from workbench.request import Request
from workbench.sampling_params import SamplingParams

SCHEDULER_FIELDS = frozenset(SchedulerConfig.__dataclass_fields__)
CACHE_FIELDS = frozenset(CacheConfig.__dataclass_fields__)


def make_engine(model: Any, policies: Policies | None = None, **settings: Any) -> EngineParts:
    """An engine on the CPU; settings go to the config that has a field of that name."""
    scheduler = {k: settings.pop(k) for k in list(settings) if k in SCHEDULER_FIELDS}
    cache = {k: settings.pop(k) for k in list(settings) if k in CACHE_FIELDS}
    config = EngineConfig(
        model=str(model) if not isinstance(model, dict) else model,
        device=settings.pop("device", "cpu"),
        scheduler_config=SchedulerConfig(**scheduler),
        cache_config=CacheConfig(**cache),
        **settings,
    )
    return build_engine_core(config, policies)


def make_request(
    engine: EngineParts, request_id: str, prompt: list[int], params: SamplingParams, **fields: Any
) -> Request:
    """A request as the front makes it."""
    request = Request(
        request_id,
        len(prompt),
        params.max_tokens or 16,
        prompt_token_ids=prompt,
        sampling_params=params,
        stop_token_ids=frozenset(params.stop_token_ids),
        **fields,
    )
    if engine.cache_config.enable_prefix_caching:
        block_size = engine.cache_config.block_size
        request.block_hashes = TokenBlockHashes(prompt, request.output_token_ids, block_size)
    return request


@dataclass
class Run:
    """What a run left behind: outputs of every step, and the requests."""

    requests: list[Request]
    model_outputs: list[ModelRunnerOutput] = field(default_factory=list)
    num_steps: int = 0

    @property
    def token_ids(self) -> list[list[int]]:
        # a step in flight when a request ended may have given it tokens that are nobody's
        return [r.output_token_ids[: r.num_output_tokens] for r in self.requests]

    @property
    def num_preemptions(self) -> int:
        return sum(request.num_preemptions for request in self.requests)


def run_step(engine: EngineParts, run: Run) -> None:
    """One step of the core."""
    step = engine.core.step()
    try:
        output = next(step).result()
        run.model_outputs.append(output)
        step.send(output)
    except StopIteration:
        run.num_steps += 1


def run_requests(
    engine: EngineParts, requests: Sequence[Request], arrive_every: int = 0, max_steps: int = 5000
) -> Run:
    """Run requests to their ends; one arrives every so many steps, or all at once."""
    run = Run(list(requests))
    coming = list(requests)
    while coming or engine.core.has_work:
        while coming and (
            not arrive_every or run.num_steps >= _due(requests, coming, arrive_every)
        ):
            assert engine.core.add_request(coming.pop(0))
        run_step(engine, run)
        if isinstance(engine.executor, InlineExecutor):
            engine.runner.input_batch.check_integrity()
        if run.num_steps > max_steps:
            raise AssertionError(f"no end after {max_steps} steps")
    engine.executor.shutdown()
    engine.runner.input_batch.check_integrity()
    return run


def _due(requests: Sequence[Request], coming: list[Request], arrive_every: int) -> int:
    return (len(requests) - len(coming)) * arrive_every


def generate(
    engine: EngineParts,
    prompts: Sequence[list[int]],
    max_tokens: int | Sequence[int] = 16,
    params: SamplingParams | None = None,
    arrive_every: int = 0,
) -> Run:
    """Greedy answers (or by `params`) to prompts of token ids."""
    limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else max_tokens
    requests = []
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        own = params or SamplingParams(temperature=0.0, max_tokens=limit)
        requests.append(make_request(engine, f"r{i}", prompt, own))
    return run_requests(engine, requests, arrive_every)


@torch.inference_mode()
def greedy_with_transformers(
    model: Any, prompts: Sequence[list[int]], max_tokens: int
) -> list[list[int]]:
    """What a transformers model answers greedily: its own forward pass over all tokens, each time.

    Padding stands behind the texts, where a causal model does not see it. Every token's gap to the
    second best is checked: within rounding, a comparison of tokens would be a matter of luck.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    rows = torch.arange(len(prompts))
    tokens = torch.zeros(len(prompts), int(lengths.max()) + max_tokens, dtype=torch.int64)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    for i in range(max_tokens):
        width = int(lengths.max()) + i
        best = model(tokens[:, :width]).logits[rows, lengths + i - 1].topk(2)
        gap = float((best.values[:, 0] - best.values[:, 1]).min())
        assert gap > 1e-3, "choose another seed: a tie decides a token"
        tokens[rows, lengths + i] = best.indices[:, 0]
    return [
        row[length : length + max_tokens].tolist()
        for row, length in zip(tokens, lengths.tolist(), strict=True)
    ]
