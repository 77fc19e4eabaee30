"""The real engine as a server's core, composed from the same settings as the simulated one."""

import asyncio
from pathlib import Path

import pytest

from engine.async_llm import AsyncLLM
from engine.model_text import ModelText
from experiments.serving.core_spec import PlannedCore
from experiments.serving.options import read_options
from tests.engine.checkpoints import make_checkpoint
from workbench.sampling_params import SamplingParams
from workbench.step_profile import read_steps

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
