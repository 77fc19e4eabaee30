"""Same decisions in both worlds: the real engine with a tiny model, and its replay."""

from pathlib import Path

import pytest

from engine.core_recorder import RecordedCore
from engine.llm import LLM
from simulator.replay import Replay
from tests.engine.checkpoints import make_checkpoint
from tests.parity.engine_worlds import MODES, EngineWorld, record
from workbench.config import CacheConfig
from workbench.recording import RecordedSettings, RecordingWriter, read_recording
from workbench.sampling_params import SamplingParams

NUM_WORLDS = 3 * len(MODES)


@pytest.mark.parametrize("seed", range(NUM_WORLDS))
def test_every_step_of_the_engine_is_decided_alike(seed: int, tmp_path: Path) -> None:
    world = EngineWorld.draw(seed)
    path = tmp_path / "recording.jsonl.gz"
    path.write_bytes(record(world))
    result = Replay(read_recording(path), world.policies).run()
    assert result.difference is None
    assert result.num_recorded == result.num_compared == result.num_equal > 0


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_the_front_asks_of_the_engine_is_replayed(is_async: bool, tmp_path: Path) -> None:
    """Several answers to a prompt, stop strings (which abort), prompt logprobs, a later batch."""
    model = make_checkpoint(tmp_path, num_hidden_layers=1)
    settings = {"max_num_batched_tokens": 64, "max_num_seqs": 6, "max_model_len": 128}
    llm = LLM(
        str(model), device="cpu", num_gpu_blocks_override=24, async_scheduling=is_async, **settings
    )
    engine = llm.llm_engine
    scheduler = engine.core.scheduler
    writer = RecordingWriter(
        RecordedSettings(
            scheduler=scheduler.config,
            cache=CacheConfig(num_gpu_blocks_override=24),
            num_blocks=24,
            max_concurrent_batches=2 if is_async else 1,
            forget_uncomputed_blocks=True,
        )
    )
    core = RecordedCore(engine.core, writer)
    engine.core = core
    prompts = ["once upon a time " * count for count in (1, 3, 5, 5)]
    params = [
        SamplingParams(n=3, max_tokens=30, seed=1),
        SamplingParams(max_tokens=40, seed=2, stop=["e"], logit_bias={ord("e"): 9.0}),
        SamplingParams(max_tokens=5, prompt_logprobs=1, temperature=0.0),
        SamplingParams(max_tokens=8, logprobs=2, logit_bias={70: 5.0}, temperature=0.0),
    ]
    llm.generate(prompts, params, use_tqdm=False)
    llm.generate(prompts[::-1], params[3], use_tqdm=False)
    engine.shutdown()
    path = tmp_path / "recording.jsonl.gz"
    path.write_bytes(core.close())
    result = Replay(read_recording(path)).run()
    assert result.difference is None
    assert result.num_equal == result.num_recorded
    assert result.counters["requests"] == 6 + 4
    assert result.counters["aborts"] > 0
    assert result.counters["prefix_hit_tokens"] > 0
