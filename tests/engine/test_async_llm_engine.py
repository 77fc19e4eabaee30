"""AsyncLLM and LLMEngine on one small model of torch: the same answers.

Requests reach the served core one by one, so its batches are others, and float32 sums with them:
log probabilities are equal up to rounding.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.async_llm import AsyncLLM
from engine.build import build_engine_core
from engine.clock import WallClock
from engine.config import EngineConfig
from engine.llm_engine import LLMEngine
from engine.model_text import ModelText
from engine.outputs import CompletionOutput, PositionLogprobs, RequestOutput
from engine.served_core import CoreSpec, ServedCore, core_info
from tests.engine.checkpoints import make_checkpoint
from workbench.config import CacheConfig, SchedulerConfig
from workbench.sampling_params import RequestOutputKind, SamplingParams

PROMPTS = ["The quick brown fox", "jumps", "over the lazy dog, again and again and again", "ü"]
PARAMS: list[dict[str, Any]] = [
    {"temperature": 0.0, "max_tokens": 12, "logprobs": 2, "prompt_logprobs": 1},
    {"seed": 5, "max_tokens": 15, "n": 3, "logprobs": 0},
    {"seed": 6, "max_tokens": 30, "stop": ["e", "ab"], "include_stop_str_in_output": True},
    {"temperature": 0.7, "max_tokens": 9, "top_k": 20, "presence_penalty": 0.5, "min_tokens": 9},
    {"seed": 1, "max_tokens": 10, "logit_bias": {101: 4.0}, "bad_words": ["x"]},
]


def engine_config(folder: str, is_async: bool) -> EngineConfig:
    return EngineConfig(
        model=folder,
        device="cpu",
        scheduler_config=SchedulerConfig(
            max_model_len=256, max_num_seqs=8, max_num_batched_tokens=48, async_scheduling=is_async
        ),
        cache_config=CacheConfig(block_size=8),
    )


def torch_core(settings: Mapping[str, Any]) -> ServedCore:
    """The factory."""
    clock = WallClock()
    parts = build_engine_core(engine_config(settings["folder"], settings["is_async"]), clock=clock)
    return ServedCore(
        core=parts.core,
        info=core_info(parts.core, world="engine", vocab_size=parts.model.vocab_size),
        cache_config=parts.cache_config,
        to_wall=clock.to_wall,
        from_wall=clock.from_wall,
        shutdown=parts.executor.shutdown,
    )


def offline(folder: str, is_async: bool) -> dict[str, RequestOutput]:
    """What LLMEngine answers."""
    engine = LLMEngine.from_config(engine_config(folder, is_async))
    for name, prompt, params in requests(RequestOutputKind.FINAL_ONLY):
        engine.add_request(name, prompt, params)
    outputs = {}
    while engine.has_unfinished_requests():
        outputs |= {output.request_id: output for output in engine.step()}
    engine.shutdown()
    return outputs


def requests(kind: RequestOutputKind) -> list[tuple[str, str, SamplingParams]]:
    return [
        (f"{i}-{j}", prompt, SamplingParams(**params, output_kind=kind))
        for i, prompt in enumerate(PROMPTS)
        for j, params in enumerate(PARAMS)
    ]


async def served(folder: str, is_async: bool, kind: RequestOutputKind) -> dict[str, Any]:
    """What AsyncLLM answers, piece by piece."""
    spec = CoreSpec(f"{__name__}:torch_core", {"folder": folder, "is_async": is_async})
    llm = await AsyncLLM.start(spec, text=ModelText.of_folder(folder), in_thread=True)

    async def one(name: str, prompt: str, params: SamplingParams) -> list[RequestOutput]:
        return [output async for output in llm.generate(prompt, params, name)]

    asked = requests(kind)
    outputs = await asyncio.gather(*(one(*each) for each in asked))
    assert (await llm.call("block_usage"))[0] == 0
    await llm.shutdown()
    return {name: given for (name, _, _), given in zip(asked, outputs, strict=True)}


def whole(pieces: list[RequestOutput], index: int) -> CompletionOutput:
    """One answer of its pieces."""
    parts = [each for output in pieces for each in output.outputs if each.index == index]
    logprobs = [position for part in parts for position in part.logprobs or ()]
    return CompletionOutput(
        index,
        "".join(part.text for part in parts),
        [token_id for part in parts for token_id in part.token_ids],
        parts[-1].cumulative_logprob,
        None if parts[0].logprobs is None else logprobs,
        parts[-1].finish_reason,
        parts[-1].stop_reason,
    )


def rounded(positions: list[PositionLogprobs | None] | None) -> Any:
    """Log probabilities as they may be compared."""
    if positions is None:
        return None
    return [
        position and {i: pytest.approx(told.logprob, abs=1e-4) for i, told in position.items()}
        for position in positions
    ]


def plain(positions: list[PositionLogprobs | None] | None) -> Any:
    if positions is None:
        return None
    return [
        position and {i: told.logprob for i, told in position.items()} for position in positions
    ]


def assert_alike(got: CompletionOutput, wanted: CompletionOutput, name: str) -> None:
    told = rounded(wanted.logprobs)
    assert plain(got.logprobs) == told, name
    if wanted.cumulative_logprob is not None:
        assert got.cumulative_logprob == pytest.approx(wanted.cumulative_logprob, abs=1e-3), name
    bare = {"logprobs": None, "cumulative_logprob": None}
    assert replace(got, **bare) == replace(wanted, **bare), name


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_both_fronts_give_the_same_answers(tmp_path: Path, is_async: bool) -> None:
    folder = os.fspath(make_checkpoint(tmp_path))
    expected = offline(folder, is_async)
    got = asyncio.run(served(folder, is_async, RequestOutputKind.DELTA))
    assert got.keys() == expected.keys()
    for name, pieces in got.items():
        wanted = expected[name]
        assert pieces[-1].finished
        assert pieces[-1].prompt_token_ids == wanted.prompt_token_ids
        assert plain(pieces[-1].prompt_logprobs) == rounded(wanted.prompt_logprobs)
        assert pieces[-1].metrics is not None
        for answer in wanted.outputs:
            assert_alike(whole(pieces, answer.index), answer, name)


def test_the_text_side_of_a_folder_is_that_of_the_engine(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    (tmp_path / "generation_config.json").write_text(
        '{"eos_token_id": [257, 9], "temperature": 0.25}'
    )
    text = ModelText.of_folder(tmp_path)
    engine = LLMEngine.from_config(engine_config(os.fspath(tmp_path), False))
    assert text.default_params == engine.default_params
    assert text.default_params.temperature == 0.25
    assert text.eos.others == (9,)
    assert text.tokenizer.encode("abc") == engine.tokenizer.encode("abc")
    assert ModelText.of_folder(tmp_path, skip_tokenizer_init=True).tokenizer is None
