"""Steps before the first one: any engine takes them, and none remembers them."""

from typing import Any

import pytest

from engine.warm_up import prepare_products, warm_up
from tests.engine.harness import generate, make_engine
from tests.engine.test_serving_run import MODEL

SMALL: dict[str, Any] = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "max_model_len": 128}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_num_seqs": 1},
        {"max_num_batched_tokens": 10},
        {"num_gpu_blocks_override": 8},
        {"num_speculative_tokens": 2},
        {"async_scheduling": True},
        {"max_model_len": 8},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_nothing_stays_behind(settings: dict[str, Any]) -> None:
    engine = make_engine(MODEL, load_format="dummy", dtype="float32", **{**SMALL, **settings})
    warm_up(engine)
    batch = engine.runner.input_batch
    batch.check_integrity()
    assert batch.slot_of == {}
    assert engine.core.scheduler.kv_cache_manager.usage == 0.0
    engine.executor.shutdown()


def test_the_answers_are_the_same_with_and_without() -> None:
    answers = []
    for is_warm in (False, True):
        engine = make_engine(MODEL, load_format="dummy", dtype="float32", **SMALL)
        if is_warm:
            warm_up(engine)
        answers.append(generate(engine, [[1, 2, 3], list(range(40))], 6).token_ids)
    assert answers[0] == answers[1]


def test_products_are_prepared_up_to_the_largest_step_or_the_limit() -> None:
    engine = make_engine(MODEL, load_format="dummy", dtype="float32", **SMALL)
    assert prepare_products(engine.model, 64) == 64
    assert prepare_products(engine.model, 64, max_flops=0.0) == 0
    per_row = sum(
        2 * weight.numel()
        for weight in {
            m.weight.shape: m.weight for m in engine.model.modules() if hasattr(m, "parts")
        }.values()
    )
    assert prepare_products(engine.model, 64, max_flops=(1 + 2 + 3) * per_row) == 3
    engine.executor.shutdown()
