"""What follows for the scheduler from several groups: defaults that move, choices that clash."""

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.budget import MAX_BLOCKS, MAX_REPLICAS, check_size, notes, scheduler_config
from experiments.run import compose_config
from experiments.schema import settings
from simulator.model_config import ModelConfig, load_model_preset
from workbench.config import SchedulerConfig
from workbench.errors import ConfigError
from workbench.scheduler.batch_policy import (
    BatchPolicy,
    PrefillFirstBatching,
    SarathiBatching,
    StaticBatching,
    UnifiedBatching,
)

POSITIONS = 131072


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    return load_model_preset("llama3_8b")


def config(**scheduler: Any) -> DictConfig:
    """A config as a run folder keeps it: plain, and null where nobody has chosen."""
    return OmegaConf.create({"scheduler": {"max_num_batched_tokens": None, **scheduler}})


def test_the_config_of_a_run_says_whether_a_budget_was_chosen() -> None:
    assert compose_config().scheduler.max_num_batched_tokens is None
    assert settings(compose_config(), "scheduler") == SchedulerConfig()
    chosen = compose_config(["scheduler.max_num_batched_tokens=512"])
    assert settings(chosen, "scheduler").max_num_batched_tokens == 512
    with pytest.raises(ConfigError, match=r"^scheduler\.max_num_batched_tokens=0"):
        settings(config(max_num_batched_tokens=0), "scheduler")


@pytest.mark.parametrize(
    ("given", "policy", "budget"),
    [
        ({}, UnifiedBatching(), 2048),
        ({}, SarathiBatching(), 2048),
        ({}, StaticBatching(), 2048),
        ({}, PrefillFirstBatching(), POSITIONS),
        ({"max_model_len": 4096}, PrefillFirstBatching(), 4096),
        ({"max_model_len": 1024}, PrefillFirstBatching(), 2048),
        ({"enable_chunked_prefill": False}, StaticBatching(), POSITIONS),
        ({"max_num_batched_tokens": POSITIONS + 1}, PrefillFirstBatching(), POSITIONS + 1),
    ],
)
def test_a_budget_that_nobody_chose_holds_the_longest_prompt(
    given: dict[str, Any], policy: BatchPolicy, budget: int, model: ModelConfig
) -> None:
    scheduler = scheduler_config(config(**given), model, policy)
    assert scheduler.max_num_batched_tokens == budget
    told = notes(config(**given), scheduler, policy)
    moved = "max_num_batched_tokens" not in given and budget != 2048
    assert [str(budget) in line for line in told] == [True] * moved


@pytest.mark.parametrize(
    ("given", "policy", "message"),
    [
        (
            {"max_num_batched_tokens": 2048},
            PrefillFirstBatching(),
            "scheduler.max_num_batched_tokens=2048 is below scheduler.max_model_len=131072",
        ),
        (
            {"max_num_batched_tokens": 8192, "enable_chunked_prefill": False},
            UnifiedBatching(),
            "scheduler.max_num_batched_tokens=8192 is below scheduler.max_model_len",
        ),
        (
            {"max_num_batched_tokens": 255},
            UnifiedBatching(),
            "scheduler.max_num_batched_tokens=255 is below scheduler.max_num_seqs=256",
        ),
        (
            {"max_num_batched_tokens": 511},
            SarathiBatching(512),
            "batch_policy.chunk_size=512 exceeds scheduler.max_num_batched_tokens=511",
        ),
        ({"max_model_len": POSITIONS + 1}, UnifiedBatching(), "exceeds the 131072 positions"),
    ],
)
def test_a_choice_that_cannot_be_kept_is_refused(
    given: dict[str, Any], policy: BatchPolicy, message: str, model: ModelConfig
) -> None:
    with pytest.raises(ConfigError) as caught:
        scheduler_config(config(**given), model, policy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((MAX_REPLICAS + 1, 1, 0), "cluster.replicas=10001 exceeds 10000"),
        ((1, MAX_BLOCKS + 1, 0), "cache.num_gpu_blocks_override: 50000001 KV blocks exceed"),
        ((100, MAX_BLOCKS // 99, 0), "on each of 100 replicas exceed the 500000"),
        ((1, 1, MAX_BLOCKS + 1), "cache.swap_space_gib: 50000001 KV blocks exceed"),
    ],
)
def test_what_would_fill_the_memory_of_this_machine_is_refused(
    sizes: tuple[int, int, int], message: str
) -> None:
    check_size(MAX_REPLICAS, MAX_BLOCKS // MAX_REPLICAS, 0)
    with pytest.raises(ConfigError, match=message):
        check_size(*sizes)
