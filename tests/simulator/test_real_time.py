"""The simulated device in scaled real time, behind an unchanged engine core."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost_models.base import CostModel
from simulator.cost_models.linear import LinearCostModel
from simulator.scaled_clock import ScaledClock
from simulator.vocabulary import Vocabulary
from tests.simulator.real_time_worlds import Wall, World
from workbench.errors import ConfigError, CostModelError
from workbench.request import RequestStatus
from workbench.step_profile import StepShape
from workbench.structured_output import GrammarOutput


@pytest.mark.parametrize("speed", [0.5, 1.0, 10.0, 50.0])
def test_steps_end_on_the_wall_when_they_do_in_the_simulation(speed: float) -> None:
    world = World(speed=speed, host_s=20e-6)
    begin = world.wall()
    request = world.add("a", max_tokens=20)
    arrival = request.arrival_time
    world.run()
    times = np.array(request.token_times) - arrival
    assert times == pytest.approx(0.01 * np.arange(1, 21), abs=1e-4 * speed)
    assert world.wall() - begin == pytest.approx(0.2 / speed, abs=2e-4)


def test_scheduling_takes_its_time_inside_of_a_step() -> None:
    world = World(host_s=0.004)
    request = world.add("a", max_tokens=50)
    world.run()
    gaps = np.diff(request.token_times)
    assert gaps == pytest.approx(np.full(49, 0.01))


def test_a_request_that_comes_after_a_pause_begins_then() -> None:
    world = World()
    world.add("a", max_tokens=2)
    world.run()
    world.wall.time += 3.0
    request = world.add("b", max_tokens=1)
    world.run()
    assert request.token_times[0] - request.arrival_time == pytest.approx(0.01, abs=1e-5)


def test_the_speed_that_was_reached_is_told() -> None:
    world = World(speed=100.0, host_s=0.001)
    world.add("a", max_tokens=450)
    world.run()
    # a step of 100 us a millisecond
    assert world.executor.pace.reached == pytest.approx(10.0, rel=0.1)
    assert not world.told
    world = World(speed=1000.0, host_s=0.1)
    world.add("a", max_tokens=450)
    world.run()
    assert "times real time, not at 1000" in world.told[0]


def test_steps_without_cost_are_not_waited_for() -> None:
    world = World(cost_model=LinearCostModel())
    world.add("a", max_tokens=200)
    world.run()
    assert not world.wall.sleeps
    assert world.executor.pace.reached == 1.0


@pytest.mark.parametrize("async_scheduling", [False, True])
def test_every_request_gets_all_of_its_tokens(async_scheduling: bool) -> None:
    world = World(async_scheduling=async_scheduling, max_num_batched_tokens=64, max_num_seqs=8)
    requests = [world.add(str(n), range(n, n + 50 + n), 10 + n) for n in range(20)]
    world.run()
    assert [len(r.output_token_ids) for r in requests] == [10 + n for n in range(20)]
    assert {t for r in requests for t in r.output_token_ids} <= set(range(10, 60))
    world.core.scheduler.check_integrity()


def test_asynchronous_steps_overlap_what_the_host_does() -> None:
    class HalfHost(LinearCostModel):
        def host_time(self, shape: StepShape) -> float:
            return 0.004

    took = []
    for async_scheduling in (False, True):
        world = World(cost_model=HalfHost(base_s=0.01), async_scheduling=async_scheduling)
        begin = world.wall()
        world.add("a", max_tokens=100)
        world.run()
        took.append(world.wall() - begin)
    assert took == [pytest.approx(1.0, abs=1e-3), pytest.approx(0.604, abs=1e-3)]


def test_accepted_drafts_come_at_once() -> None:
    world = World(num_speculative_tokens=3, acceptance_rate=1.0)
    request = world.add("a", max_tokens=41)
    world.run()
    assert len(request.output_token_ids) == 41
    assert len(set(request.token_times)) == 11


def answers(world: World) -> dict[str, list[int]]:
    requests = [
        world.add("seeded", range(30), 12, seed=7),
        world.add("greedy", range(40), 12, temperature=0.0),
        world.add("free", range(50), 12),
    ]
    world.run()
    return {r.request_id: list(r.output_token_ids) for r in requests}


@settings(max_examples=20, deadline=None)
@given(
    budget=st.integers(8, 200),
    blocks=st.integers(8, 40),
    num_drafts=st.sampled_from([0, 2]),
    async_scheduling=st.booleans(),
    use_runs=st.booleans(),
)
def test_an_answer_depends_on_nothing_that_a_server_does(
    budget: int, blocks: int, num_drafts: int, async_scheduling: bool, use_runs: bool
) -> None:
    expected = answers(World())
    got = answers(
        World(
            max_num_batched_tokens=budget,
            max_num_seqs=3,
            num_blocks=blocks,
            num_speculative_tokens=num_drafts,
            async_scheduling=async_scheduling,
            use_runs=use_runs,
        )
    )
    assert got == expected


def test_seeds_and_prompts_make_answers() -> None:
    first, second = answers(World(seed=0)), answers(World(seed=1))
    assert first["seeded"] == second["seeded"]
    assert first["greedy"] == second["greedy"]
    assert first["free"] != second["free"]
    world = World()
    pair = [world.add("x", range(30), 12, seed=7), world.add("y", range(31), 12, seed=7)]
    world.run()
    assert pair[0].output_token_ids == first["seeded"]
    assert pair[1].output_token_ids != first["seeded"]


def test_a_prompt_that_was_answered_before_is_found_in_the_cache() -> None:
    world = World()
    world.add("a", range(100))
    world.run()
    request = world.add("b", range(100))
    world.run()
    assert request.num_cached_tokens == 96


def test_answers_end_by_themselves_where_they_may() -> None:
    world = World(mean_output_tokens=10.0, cost_model=LinearCostModel(), num_blocks=4000)
    requests = [world.add(str(n), max_tokens=400) for n in range(200)]
    stubborn = world.add("s", max_tokens=400, ignore_eos=True)
    patient = world.add("p", max_tokens=400, min_tokens=50)
    world.run()
    lengths = [len(r.output_token_ids) for r in requests]
    assert 8 < np.mean(lengths) < 12
    assert all(r.status is RequestStatus.FINISHED_STOPPED for r in requests)
    assert len(stubborn.output_token_ids) == 400
    assert len(patient.output_token_ids) > 50


def test_what_requests_ask_of_tokens_holds() -> None:
    world = World()
    world.add("forced", logit_bias={77: 100.0}, max_tokens=4)
    allowed = world.add("allowed", allowed_token_ids=[3, 4], max_tokens=8)
    banned = world.add("banned", logit_bias=dict.fromkeys(range(10, 59), -100.0), max_tokens=3)
    none = world.add("none", allowed_token_ids=[3], logit_bias={3: -100.0}, max_tokens=3)
    world.run()
    assert set(allowed.output_token_ids) <= {3, 4}
    assert banned.output_token_ids == [59] * 3
    assert none.status is RequestStatus.FINISHED_ERROR
    assert "allowed_token_ids" in str(none.stop_reason)


def test_log_probabilities_are_those_of_equally_likely_tokens() -> None:
    world = World(max_num_batched_tokens=256)
    request = world.add("a", range(20), 2, logprobs=3, prompt_logprobs=1)
    request.block_hashes = None
    world.run()
    first = world.model_outputs[0]
    told = first.logprobs["a"][0]
    assert told.token_ids[0] == told.token_ids[1] == request.output_token_ids[0]
    assert len(set(told.token_ids)) == 3
    assert told.logprobs == [-math.log(1000)] * 4
    of_prompt = first.prompt_logprobs["a"]
    assert of_prompt.start == 1
    assert [t.token_ids[0] for t in of_prompt.tokens] == list(range(1, 20))


def test_prompt_log_probabilities_come_chunk_by_chunk() -> None:
    world = World(max_num_batched_tokens=16, max_num_seqs=4)
    request = world.add("a", range(40), 1, prompt_logprobs=0)
    request.block_hashes = None
    world.run()
    parts = [o.prompt_logprobs["a"] for o in world.model_outputs if o.prompt_logprobs]
    assert [p.start for p in parts] == [1, 17, 33]
    assert [t.token_ids[0] for p in parts for t in p.tokens] == list(range(1, 40))


def bitmask(*token_ids: int, size: int = 1000) -> np.ndarray:
    row = np.zeros(-(-size // 32), dtype=np.int32)
    for token_id in token_ids:
        row[token_id // 32] |= np.int32(np.uint32(1 << token_id % 32).view(np.int32))
    return row


def sample(world: World, *token_ids: int) -> list[int]:
    """Tokens of one step in which a grammar allows only these."""
    output = world.core.scheduler.schedule(world.clock())
    world.executor.execute_model(output)
    grammar = GrammarOutput(["a"], [1], bitmask(*token_ids)[None])
    result = world.executor.sample_tokens(grammar).result()
    world.core.scheduler.update_from_output(output, result, world.clock())
    assert result.sampled_token_ids is not None
    return list(result.sampled_token_ids[0])


def test_a_grammar_is_obeyed() -> None:
    vocabulary = Vocabulary(size=1000, spoken=range(10, 60), eos_token_id=2, closing=[31])
    world = World(vocabulary=vocabulary)
    world.add("a", max_tokens=400, min_tokens=3)
    assert sample(world, 999) == [999]  # not among the spoken ones
    assert sample(world, 15, 999) == [15]
    drawn = [sample(world, 15, 31, 47)[0] for _ in range(100)]
    assert set(drawn) == {15, 31, 47}
    assert drawn.count(31) > 35  # what closes comes more often
    assert sample(world, 2, 15) == [2]  # the end, as soon as it may be


def test_a_grammar_that_leaves_nothing_ends_its_request() -> None:
    world = World()
    request = world.add("a", max_tokens=4)
    assert sample(world) == []
    assert request.status is RequestStatus.FINISHED_ERROR


class Priceless(CostModel):
    """Refuses steps with prompts of more than 30 tokens."""

    def step_time(self, shape: StepShape) -> float:
        if any(query > 30 for query, _ in shape.prefills):
            raise CostModelError("too far from what was measured")
        return 0.01


def test_a_step_without_price_fails_its_requests_and_no_other() -> None:
    world = World(cost_model=Priceless())
    dear = world.add("dear", range(40))
    world.run()
    assert dear.status is RequestStatus.FINISHED_ERROR
    assert dear.stop_reason == "too far from what was measured"
    fine = world.add("fine", range(20))
    world.run()
    assert fine.status is RequestStatus.FINISHED_LENGTH_CAPPED


def test_requests_that_are_aborted_are_forgotten() -> None:
    world = World()
    world.add("a", max_tokens=400, logprobs=1)
    for _ in range(3):
        world.step()
    world.core.abort_requests(["a"])
    world.run()
    request = world.add("a", max_tokens=2)
    world.run()
    assert len(request.output_token_ids) == 2
    assert world.core.scheduler.kv_cache_manager.num_used_blocks == 0


def test_a_real_clock_keeps_time() -> None:
    clock = ScaledClock(100.0)
    begin = clock.to_wall(clock())
    clock.timeout_at(clock() + 1.0).result()
    assert clock.to_wall(clock()) - begin >= 0.01


@pytest.mark.parametrize(
    "wrong", [{"spoken": [1000]}, {"closing": [-1]}, {"eos_token_id": 5000}, {"size": 0}]
)
def test_a_vocabulary_of_another_model_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="vocabulary"):
        Vocabulary(**{"size": 1000, **wrong})


def test_a_wall_moves_when_one_sleeps() -> None:
    wall = Wall(0.5)
    wall.sleep(1.0)
    assert wall() == 101.5
