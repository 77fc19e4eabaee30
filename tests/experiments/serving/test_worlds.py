"""The real engine as a server's core, composed from the same settings as the simulated one."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from engine.async_llm import AsyncLLM
from engine.errors import InputError
from engine.model_text import ModelText
from experiments.parity import replay_all
from experiments.serving.core_spec import PlannedCore
from experiments.serving.options import read_options
from tests.engine.checkpoints import make_checkpoint
from workbench.sampling_params import SamplingParams
from workbench.step_profile import read_steps

LONGEST_S = 120.0
FLAGS = ("--max-num-seqs", "4", "--max-num-batched-tokens", "64", "--num-gpu-blocks-override", "40")


def test_both_worlds_have_the_same_scheduler(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    text = ModelText.of_folder(folder)
    infos, configs = [], []
    for backend in ("engine", "simulator"):
        options = read_options([str(folder), "--backend", backend, *FLAGS], {})
        served = PlannedCore.of(options).spec(text).make()
        infos.append(served.info)
        configs.append((served.core.scheduler.config, served.cache_config))
        assert served.grammars is not None
        now = served.core.clock()
        assert served.from_wall(served.to_wall(now)) == pytest.approx(now)
        served.shutdown()
    engine, simulated = infos
    assert (engine.world, simulated.world) == ("engine", "simulator")
    assert engine.facts["weights"] == "checkpoint"
    for name in ("vocab_size", "max_model_len", "max_prompt_tokens", "num_kv_blocks", "block_size"):
        assert getattr(engine, name) == getattr(simulated, name)
    assert configs[0] == configs[1]


def test_the_steps_of_an_engine_that_serves_can_be_kept(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny", has_tokenizer=False)
    file = tmp_path / "new" / "run_3.csv"
    options = read_options([str(folder), *FLAGS, "--record-steps", str(file)], {})
    llm_outputs = asyncio.run(_serve_one(PlannedCore.of(options)))
    assert len(llm_outputs) == 5
    steps = read_steps(file)
    # the first one has no step before it
    assert [(s.shape.num_decodes, s.source) for s in steps] == [(1, "run/3")] * 4
    assert all(s.seconds > s.host_s > 0.0 for s in steps)


async def _serve_one(planned: PlannedCore) -> list[int]:
    llm = await AsyncLLM.start(planned.spec(ModelText()), in_thread=True)
    try:
        params = SamplingParams(max_tokens=5, ignore_eos=True)
        outputs = [output async for output in llm.generate([1, 2, 3], params, "a")]
    finally:
        await llm.shutdown()
    return list(outputs[-1].outputs[0].token_ids)


@pytest.mark.parametrize("flags", [(), ("--async-scheduling",)], ids=["sync", "async"])
def test_a_served_engine_is_recorded_and_replayed(flags: Sequence[str], tmp_path: Path) -> None:
    folder, records = make_checkpoint(tmp_path / "tiny"), tmp_path / "new" / "records"
    options = read_options([str(folder), *FLAGS, *flags, "--record", str(records)], {})
    text = ModelText.of_folder(folder)
    ends = asyncio.run(_serve_several(PlannedCore.of(options), text))
    assert ends == ["left", "length", "length", "stop", "length", "refused", "abort"]
    if not flags:
        # a recording is not written over
        asyncio.run(_serve_several(PlannedCore.of(options), text))
    replays = list(replay_all(records))
    assert [replayed.path.parent.name for replayed in replays] == ["0", "1"][: 2 - len(flags)]
    for replayed in replays:
        result = replayed.result
        assert result.difference is None
        assert result.num_recorded == result.num_compared == result.num_equal > 20
        # one has two answers; of the two that ended early, one was still open at the end
        assert (result.counters["requests"], result.counters["aborts"]) == (7, 2)


async def _serve_several(planned: PlannedCore, text: ModelText) -> list[str]:
    """How the requests end: with different lengths, times and forms, one of them left by its
    client and one still open when the server ends."""
    llm = await AsyncLLM.start(planned.spec(text), text=text, in_thread=True)
    forever = SamplingParams(max_tokens=300, ignore_eos=True)

    async def finish(name: str, prompt: list[int], **params: Any) -> str:
        wanted = SamplingParams(**({"max_tokens": 20, "ignore_eos": True} | params))
        last = [output async for output in llm.generate(prompt, wanted, name)][-1]
        return str(last.outputs[0].finish_reason)

    async def leave() -> str:
        async with aclosing(llm.generate([1] * 20, forever, "left")) as outputs:
            async for output in outputs:
                if len(output.outputs[0].token_ids) >= 3:
                    break
        return "left"

    async with asyncio.timeout(LONGEST_S):
        ends = await asyncio.gather(
            leave(),
            finish("a", [2] * 50, n=2),
            finish("b", [3, 4, 5], max_tokens=9, seed=1),
            finish("c", [6] * 7, structured_outputs={"choice": ["yes", "no"]}, ignore_eos=False),
        )
        ends.append(await finish("d", [2] * 50, max_tokens=5))
        with pytest.raises(InputError, match="recorded"):
            await llm.call("reset_prefix_cache")
        with pytest.raises(InputError, match="does not compile"):
            await finish("refused", [7], structured_outputs={"regex": "("})
        ends.append("refused")
        stream = llm.generate([8, 9], forever, "open")
        await anext(stream)
        await llm.shutdown()
        rest = [output async for output in stream]
    return [*ends, str(rest[-1].outputs[0].finish_reason)]
