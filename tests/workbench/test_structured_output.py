"""Grammars in the core: the right bitmask at the right time, and nobody else notices."""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.workbench.random_world import MAX_STEPS, World, make_request, make_scheduler, worlds
from tests.workbench.scripted_grammar import ObedientModel, ScriptedGrammar
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler
from workbench.structured_output import GrammarOutput, allowed_token_ids, is_allowed

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    # A world shrinks for minutes; the one that was found says enough.
    phases=[Phase.explicit, Phase.generate],
)
MakeGrammar = Callable[[int], ScriptedGrammar | None]


class GrammarWorld:
    """A random world whose requests have grammars, driven to its end."""

    def __init__(self, world: World, seed: int, make: MakeGrammar, **switches: bool) -> None:
        self.world = world
        self.scheduler = make_scheduler(world, **switches)
        spec = world.scheduler["num_speculative_tokens"]
        self.model = ObedientModel(Random(seed), spec, world.acceptance_rate)
        self.now = 0.0
        kind = EngineCore if world.depth == 1 else PipelinedEngineCore
        extra = () if world.depth == 1 else (world.depth,)
        self.core = kind(self.scheduler, self.model, lambda: self.now, *extra)
        self.requests: dict[str, Request] = {}
        self.finished: list[Request] = []
        self._make = make

    def run(self) -> None:
        last_arrival = max(item["arrival_step"] for item in self.world.requests)
        for step in range(MAX_STEPS):
            self._change(step)
            if self.core.has_work:
                self.finished += take_step(self.core, self._tick).finished
                self.scheduler.check_integrity()
            elif step > last_arrival:
                assert not self.scheduler.kv_cache_manager.num_used_blocks, "blocks leaked"
                return
        raise AssertionError(f"no end after {MAX_STEPS} steps")

    def _tick(self) -> None:
        self.now += 1.0

    def _change(self, step: int) -> None:
        for ordinal, item in enumerate(self.world.requests):
            if item["arrival_step"] == step:
                request = make_request(self.world, ordinal, self.now)
                request.grammar = self._make(ordinal)
                self.requests[request.request_id] = request
                if not self.core.add_request(request):
                    self.finished.append(request)
        aborted = [str(ordinal) for at, ordinal in self.world.aborts if at == step]
        self.finished += self.core.abort_requests(aborted)

    def ends(self) -> list[tuple[str, str | None, list[int]]]:
        return [
            (r.request_id, r.finish_reason, r.output_token_ids[: r.num_output_tokens])
            for r in self.finished
        ]


def take_step(core: EngineCore, wait: Callable[[], None] = lambda: None) -> EngineCoreOutputs:
    step = core.step()
    try:
        answer = next(step)
        wait()
        step.send(answer)
    except StopIteration as done:
        outputs: EngineCoreOutputs = done.value
        return outputs
    raise AssertionError("a step waits once")


def grammar_of(ordinal: int) -> ScriptedGrammar | None:
    """Every third request is free; the others end early, late or never, or fail."""
    if ordinal % 3 == 0:
        return None
    length = (None, 1, 5, 12)[ordinal % 4]
    return ScriptedGrammar(ordinal, length, fails_at=7 if ordinal % 5 == 4 else None)


@SETTINGS
@given(worlds(), st.integers(0, 1 << 30))
def test_every_token_is_taken_in_the_state_its_bitmask_was_made_for(
    world: World, seed: int
) -> None:
    run = GrammarWorld(world, seed, grammar_of)
    run.run()
    assert len(run.finished) == len(world.requests)
    for request in run.finished:
        grammar = request.grammar
        if grammar is None:
            continue
        assert isinstance(grammar, ScriptedGrammar)
        answer = request.output_token_ids[: request.num_output_tokens]
        if request.stop_reason == "out of words":
            assert grammar.token_ids == answer[:-1]
            assert request.finish_reason == "error"
        elif request.finish_reason in ("stop", "length"):
            assert grammar.token_ids == answer
            assert grammar.is_complete is (request.finish_reason == "stop")


@SETTINGS
@given(worlds(), st.integers(0, 1 << 30))
def test_a_grammar_that_allows_everything_changes_no_decision(world: World, seed: int) -> None:
    free = GrammarWorld(world, seed, lambda ordinal: None)
    held = GrammarWorld(world, seed, lambda ordinal: ScriptedGrammar(None))
    free.run()
    held.run()
    if world.depth < 3:
        assert [each.as_dict() for each in held.model.outputs] == [
            each.as_dict() for each in free.model.outputs
        ]
        assert held.ends() == free.ends()
    assert set(free.model.grammar_outputs) <= {None}


@SETTINGS
@given(worlds(), st.integers(0, 1 << 30))
def test_the_decode_cohort_changes_no_decision(world: World, seed: int) -> None:
    runs = [GrammarWorld(world, seed, grammar_of, use_cohort=use) for use in (True, False)]
    for run in runs:
        run.run()
    with_cohort, one_by_one = ([o.as_dict() for o in run.model.outputs] for run in runs)
    assert with_cohort == one_by_one
    assert runs[0].ends() == runs[1].ends()


def make_core(is_async: bool = False, **config: Any) -> tuple[EngineCore, ObedientModel]:
    scheduler = Scheduler(
        SchedulerConfig(max_model_len=64, async_scheduling=is_async, **config),
        CacheConfig(block_size=4),
        64,
    )
    model = ObedientModel(Random(1))
    kind = PipelinedEngineCore if is_async else EngineCore
    return kind(scheduler, model, lambda: 0.0), model


def run_all(core: EngineCore) -> None:
    while core.has_work:
        take_step(core)
        core.scheduler.check_integrity()


@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_ends_with_its_grammar(is_async: bool) -> None:
    core, _ = make_core(is_async)
    requests = [
        Request("early", 5, 20, grammar=ScriptedGrammar(1, 3)),
        Request("at the length", 5, 6, grammar=ScriptedGrammar(2, 6)),
        Request("never", 5, 8, grammar=ScriptedGrammar(3)),
    ]
    for request in requests:
        core.add_request(request)
    run_all(core)
    assert [r.finish_reason for r in requests] == ["stop", "stop", "length"]
    assert [r.stop_reason for r in requests] == [None] * 3
    assert [r.num_output_tokens for r in requests] == [3, 6, 8]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_grammar_that_fails_ends_its_request_only(is_async: bool) -> None:
    core, _ = make_core(is_async)
    broken = Request("broken", 5, 20, grammar=ScriptedGrammar(1, fails_at=4))
    others = [Request("held", 5, 9, grammar=ScriptedGrammar(2)), Request("free", 5, 9)]
    for request in (broken, *others):
        core.add_request(request)
    run_all(core)
    assert (broken.finish_reason, broken.stop_reason) == ("error", "out of words")
    assert core.scheduler.why_ended(broken) == "out of words"
    assert [r.finish_reason for r in others] == ["length"] * 2


def test_without_grammars_a_step_is_sampled_at_once() -> None:
    core, model = make_core(is_async=True)
    core.add_request(Request("free", 5, 6))
    take_step(core)
    step = core.step()
    next(step)
    assert model.calls == [("execute", 0), ("sample", 0), ("execute", 1), ("sample", 1)]
    assert model.grammar_outputs == [None, None]


def test_a_bitmask_that_needs_tokens_in_flight_waits_for_them_and_no_longer() -> None:
    core, model = make_core(is_async=True)
    grammar = ScriptedGrammar(1)
    core.add_request(Request("held", 5, 6, grammar=grammar))
    core.add_request(Request("free", 5, 6))
    take_step(core)
    # the first token follows the prompt, which is known
    assert model.calls == [("execute", 0), ("sample", 0)]
    step = core.step()
    answer = next(step)
    assert model.calls[2:] == [("execute", 1)]
    assert grammar.token_ids == []
    with pytest.raises(StopIteration):
        step.send(answer)
    assert len(grammar.token_ids) == 1
    assert model.calls[2:] == [("execute", 1), ("sample", 1)]


def test_an_abort_while_a_step_waits_for_its_bitmask() -> None:
    core, model = make_core(is_async=True)
    core.add_request(Request("held", 5, 6, grammar=ScriptedGrammar(1)))
    core.add_request(Request("free", 5, 6))
    take_step(core)
    step = core.step()
    answer = next(step)
    core.abort_requests(["held"])
    with pytest.raises(StopIteration):
        step.send(answer)
    assert model.grammar_outputs[1] is None
    run_all(core)


def test_only_the_rows_that_sample_have_a_bitmask() -> None:
    core, model = make_core(max_num_batched_tokens=8)
    core.add_request(Request("free", 2, 8))
    core.add_request(Request("held", 12, 4, grammar=ScriptedGrammar(1)))
    run_all(core)
    told = [None if each is None else each.request_ids for each in model.grammar_outputs]
    assert told[:3] == [None, ["held"], ["held"]]
    first = model.grammar_outputs[1]
    assert first is not None
    assert first.num_rows == [1]
    assert first.bitmask.shape == (1, 2)


def test_constrained_requests_are_not_decoded_ahead() -> None:
    core, _ = make_core()
    core.add_request(Request("free", 2, 30))
    for _ in range(3):
        take_step(core)
    assert core.scheduler.decode_ahead(0.0, 9.0, lambda shape: 1.0) is not None
    held = Request("held", 2, 30, grammar=ScriptedGrammar(None))
    core.add_request(held)
    for _ in range(3):
        take_step(core)
    assert core.scheduler.decode_ahead(9.0, 18.0, lambda shape: 1.0) is None
    core.abort_requests(["held"])
    for _ in range(2):
        take_step(core)
    assert core.scheduler.decode_ahead(18.0, 27.0, lambda shape: 1.0) is not None


def test_tokens_without_ids_do_not_reach_a_grammar() -> None:
    core, _ = make_core()
    request = Request("counted", 5, 3, grammar=ScriptedGrammar(1))
    core.add_request(request)
    while core.has_work:
        step = core.step()
        next(step)
        with pytest.raises(StopIteration):
            step.send(ModelRunnerOutput())
    assert request.finish_reason == "length"


def test_the_rows_of_a_bitmask() -> None:
    bitmask = np.array([[1, 0], [-1, 1], [0, 2]], dtype=np.int32)
    output = GrammarOutput(["a", "b"], [1, 2], bitmask)
    rows = dict(output.items())
    assert allowed_token_ids(rows["a"][0]).tolist() == [0]
    assert allowed_token_ids(rows["b"][0]).tolist() == list(range(33))
    assert is_allowed(rows["b"][1], 33)
    assert not is_allowed(rows["b"][1], 32)
    assert is_allowed(rows["b"][0], 31)
