"""The simulated world behind AsyncLLM: composed as runs are, answered in tokens that read."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from engine.async_llm import AsyncLLM
from engine.model_text import ModelText
from engine.outputs import RequestOutput
from experiments.serving.core_spec import PlannedCore
from experiments.serving.options import read_options
from simulator.calibration import fit
from simulator.model_config import PRESETS
from tests.simulator.calibration.worlds import designed, recorded
from workbench.errors import ConfigError
from workbench.sampling_params import SamplingParams

SMALL = ("--max-model-len", "256", "--num-gpu-blocks-override", "64", "--seed", "5")


def plan(*words: str, model: str = "qwen3_0_6b") -> PlannedCore:
    return PlannedCore.of(read_options([model, "--backend", "simulator", *SMALL, *words], {}))


async def answer(planned: PlannedCore, params: SamplingParams) -> tuple[AsyncLLM, RequestOutput]:
    llm = await AsyncLLM.start(planned.spec(ModelText()), in_thread=True)
    try:
        outputs = [output async for output in llm.generate(list(range(40)), params, "a")]
        assert outputs[-1].finished
        assert (await llm.call("pace"))["busy_s"] >= 0.0
    finally:
        await llm.shutdown()
    return llm, outputs[-1]


@pytest.mark.parametrize(
    "words",
    [
        ("cost_model=zero",),
        ("cost_model=constant", "cost_model.step_s=0.0001"),
        ("cost_model=roofline", "hardware=h100", "--speed", "1000"),
        ("cost_model=zero", "--async-scheduling"),
        ("cost_model=zero", "--num-speculative-tokens", "2"),
        ("cost_model=zero", "--no-enable-chunked-prefill", "--max-num-batched-tokens", "256"),
        ("cost_model=zero", "--scheduling-policy", "priority"),
        ("cost_model=zero", "-pp", "2"),
        ("cost_model=zero", "batch_policy=prefill_first", "scheduler=swap"),
    ],
)
def test_answers_have_the_length_that_was_asked_for(words: tuple[str, ...]) -> None:
    planned = plan(*words)
    llm, output = asyncio.run(answer(planned, SamplingParams(max_tokens=21)))
    assert len(output.outputs[0].token_ids) == 21
    assert output.outputs[0].finish_reason == "length"
    assert llm.info.world == "simulator"
    assert llm.info.num_kv_blocks == 64
    assert llm.info.max_model_len == 256
    assert llm.info.vocab_size == 151936


def test_a_seed_makes_the_same_answer_in_every_server() -> None:
    params = SamplingParams(max_tokens=8, seed=1)
    tokens = [asyncio.run(answer(plan("cost_model=zero"), params))[1] for _ in range(2)]
    assert tokens[0].outputs[0].token_ids == tokens[1].outputs[0].token_ids


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("cluster.replicas=2",), "a server has one engine"),
        (("eviction=belady",), "choose eviction=lru"),
        (("workload=azure_code",), "clients bring the requests"),
        (("router=random",), "workbench route"),
        (("cost_model=calibrated", "cost_model.path=nowhere"), "does not exist"),
        (("--max-num-seqs", "0"), "max_num_seqs=0"),
        (("--async-scheduling", "-pp", "2"), "not modelled"),
    ],
)
def test_what_a_server_cannot_be_is_told_before_it_starts(
    words: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(*words)
    assert told in str(caught.value)


def calibration_file(folder: Path, **facts: Any) -> Path:
    config = json.loads((PRESETS / "qwen3_0_6b" / "config.json").read_text())
    sizes = {name: config[name] for name in ("hidden_size", "vocab_size")}
    file = folder / "calibration.json"
    steps = designed() + recorded(runs=2, steps=60)
    fit(steps, {"device": "cpu", "model": sizes} | facts).save(file)
    return file


def test_a_calibrated_server_has_the_cache_of_the_engine_that_was_measured(tmp_path: Path) -> None:
    file = calibration_file(tmp_path, num_kv_blocks=777, block_size=16)
    words = ["qwen3_0_6b", "--backend", "simulator", "--max-model-len", "256"]
    words += ["cost_model=calibrated", f"cost_model.path={file}"]
    planned = PlannedCore.of(read_options(words, {}))
    assert planned.assembly is not None
    assert planned.assembly.num_kv_blocks == 777
    assert "777 KV blocks" in planned.notes[0]
    chosen = PlannedCore.of(read_options([*words, "--num-gpu-blocks-override", "50"], {}))
    assert chosen.assembly is not None
    assert chosen.assembly.num_kv_blocks == 50
    other = PlannedCore.of(read_options([*words, "--block-size", "32"], {}))
    assert other.assembly is not None
    assert other.assembly.num_kv_blocks != 777


def calibrated_words(file: Path, *words: str) -> list[str]:
    return [
        *("qwen3_0_6b", "--backend", "simulator", "--max-model-len", "256"),
        *("cost_model=calibrated", f"cost_model.path={file}", *words),
    ]


def test_steps_of_a_calibrated_server_may_scatter(tmp_path: Path) -> None:
    file = calibration_file(tmp_path, num_kv_blocks=777, block_size=16)
    words = [*calibrated_words(file, "cost_model.noise=7"), "--speed", "100"]
    planned = PlannedCore.of(read_options(words, {}))
    _, output = asyncio.run(answer(planned, SamplingParams(max_tokens=9)))
    assert len(output.outputs[0].token_ids) == 9


def test_a_server_has_no_prices_of_one_run(tmp_path: Path) -> None:
    file = calibration_file(tmp_path, num_kv_blocks=777, block_size=16)
    with pytest.raises(ConfigError, match="prices for one run only"):
        PlannedCore.of(read_options(calibrated_words(file, "cost_model.slowdown=[1,2]"), {}))
    steps = tmp_path / "steps.csv"
    steps.write_text("replica,duration_s\n0,0.5\n")
    with pytest.raises(ConfigError, match="prices for one run only"):
        plan("cost_model=replay", f"cost_model.path={steps}")
