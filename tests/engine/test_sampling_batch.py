"""The sampling batch: what its edits do against plain Python, for any history of the slots."""

from functools import partial

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import penalties
from engine.sampling_batch import SamplingBatch
from tests.engine.plain_sampling import edited
from workbench.sampling_params import SamplingParams

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB = 7
SLOTS = 6
TOKENS = st.integers(0, VOCAB - 1)

PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.7]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.3, -1.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.5]),
    logit_bias=st.dictionaries(TOKENS, st.sampled_from([-2.0, 4.0]), max_size=2),
    allowed_token_ids=st.none() | st.lists(TOKENS, min_size=1, max_size=5),
    bad_words_token_ids=st.lists(st.lists(TOKENS, min_size=1, max_size=4), max_size=3),
    min_tokens=st.integers(0, 6),
    stop_token_ids=st.lists(TOKENS, max_size=2),
)
REQUEST = st.tuples(PARAMS, st.lists(TOKENS, max_size=5), st.lists(TOKENS, max_size=4))


class World:
    """A sampling batch and what it should hold."""

    def __init__(self) -> None:
        self.batch = SamplingBatch(SLOTS, VOCAB, DEVICE)
        self.held: dict[int, tuple[SamplingParams, list[int], list[int]]] = {}

    def add(self, slot: int, request: tuple[SamplingParams, list[int], list[int]]) -> None:
        if slot in self.held:
            self.batch.remove(slot)
        params, prompt, answer = request
        self.held[slot] = (params, prompt, list(answer))
        self.batch.add(slot, f"{slot}", params, prompt, answer)

    def remove(self, slot: int) -> None:
        self.held.pop(slot, None)
        self.batch.remove(slot)

    def record(self, slots: list[int], token_ids: list[int]) -> None:
        for slot, token_id in zip(slots, token_ids, strict=True):
            if token_id >= 0:
                self.held[slot][2].append(token_id)
        as_tensor = partial(torch.tensor, dtype=torch.int64, device=DEVICE)
        self.batch.record(as_tensor(slots), as_tensor(token_ids))

    def check(self, drafts: dict[int, list[int]]) -> None:
        """One row a request, and one more for each draft."""
        slots, counts, before, expected = [], [], [], []
        rng = np.random.default_rng(len(self.held))
        rows = []
        for slot in sorted(self.held, reverse=True):
            params, prompt, answer = self.held[slot]
            for i in range(len(drafts.get(slot, [])) + 1):
                taken = [*answer, *drafts.get(slot, [])[:i]]
                rows.append(rng.normal(size=VOCAB).astype(np.float32))
                slots.append(slot)
                counts.append(len(taken))
                before.append(drafts[slot][i - 1] if i else -1)
                expected.append(edited(rows[-1].tolist(), params, prompt, taken))
        if not rows:
            return
        logits = torch.tensor(np.array(rows), device=DEVICE)
        plan = self.batch.plan(
            np.array(slots), np.array(counts), np.array(before) if drafts else None
        )
        for edit in plan.edits:
            edit(logits)
        np.testing.assert_allclose(logits.cpu().numpy(), np.array(expected), rtol=1e-5, atol=1e-5)


@settings(max_examples=120)
@given(st.data())
def test_edits_equal_plain_python_whatever_the_slots_went_through(data: st.DataObject) -> None:
    world = World()
    for _ in range(data.draw(st.integers(1, 6))):
        slot = data.draw(st.integers(0, SLOTS - 1))
        action = data.draw(st.sampled_from(["add", "add", "remove", "record", "record", "drafts"]))
        if action == "add":
            world.add(slot, data.draw(REQUEST))
        elif action == "remove":
            world.remove(slot)
        elif action == "record":
            for slots in (sorted(world.held), sorted(world.held)[::2]):
                ids = data.draw(st.lists(TOKENS, min_size=len(slots), max_size=len(slots)))
                world.record(slots, ids)
        drafts = {}
        if action == "drafts":
            drafts = {slot: data.draw(st.lists(TOKENS, max_size=4)) for slot in world.held}
        world.check({slot: ids for slot, ids in drafts.items() if ids})


@settings(max_examples=40)
@given(REQUEST, st.lists(st.lists(TOKENS, min_size=0, max_size=4), max_size=4))
def test_several_tokens_of_a_request_are_recorded_in_order(
    request: tuple[SamplingParams, list[int], list[int]], steps: list[list[int]]
) -> None:
    world = World()
    world.add(2, request)
    world.add(4, request)
    for token_ids in steps:
        padded = [*token_ids, *[-1] * (4 - len(token_ids))]
        world.record([2] * 4 + [4], [*padded, 0])
        world.check({})


def test_tokens_of_one_step_stand_in_their_order() -> None:
    world = World()
    params = SamplingParams(bad_words_token_ids=[[1, 2, 3], [3, 1, 5]])
    world.add(0, (params, [], [3]))
    world.add(3, (params, [], []))
    world.record([0, 0, 0, 3, 3], [1, -1, -1, 1, 2])
    world.check({})
    world.record([3, 3, 0, 0], [3, 1, 1, 2])
    world.check({})
    world.check({0: [1, 2], 3: [5]})


def test_a_long_answer_wraps_round_the_ring() -> None:
    world = World()
    params = SamplingParams(bad_words_token_ids=[[1, 2, 3], [5]])
    world.add(1, (params, [], [1] * 300))
    for token_id in [2, 1, 2, 0, 1, 2] * 60:
        world.record([1], [token_id])
    world.check({})


def test_a_batch_without_wishes_has_an_empty_plan() -> None:
    batch = SamplingBatch(4, VOCAB, DEVICE)
    for slot in range(4):
        batch.add(slot, f"{slot}", SamplingParams(temperature=0), [1, 2])
    plan = batch.plan(np.arange(4), np.zeros(4, dtype=np.int64))
    assert plan.is_greedy
    assert plan.num_rows == 4
    batch.record(torch.arange(4, device=DEVICE), torch.arange(4, device=DEVICE))


def test_settings_are_gathered_again_only_when_something_changes() -> None:
    batch = SamplingBatch(4, VOCAB, DEVICE)
    for slot in range(4):
        batch.add(slot, f"{slot}", SamplingParams(temperature=slot * 0.5), [])
    slots, counts = np.array([3, 0, 1]), np.zeros(3, dtype=np.int64)
    first = batch.plan(slots, counts).random
    assert first is not None
    assert first.rows.tolist() == [0, 2]
    assert first.temperature.tolist() == [1.5, 0.5]
    assert batch.plan(slots, counts + 1).random is first
    batch.remove(1)
    batch.add(1, "new", SamplingParams(temperature=0.25), [])
    changed = batch.plan(slots, counts).random
    assert changed is not None
    assert changed.temperature.tolist() == [1.5, 0.25]


def test_stop_tokens_of_the_model_are_masked_too() -> None:
    batch = SamplingBatch(1, VOCAB, DEVICE)
    params = SamplingParams(temperature=0, min_tokens=2, stop_token_ids=[1])
    batch.add(0, "r", params, [], stop_token_ids=[6])
    for num_output, masked in ((0, [1, 6]), (1, [1, 6]), (2, [])):
        logits = torch.zeros(1, VOCAB, device=DEVICE)
        for edit in batch.plan(np.array([0]), np.array([num_output])).edits:
            edit(logits)
        assert torch.nonzero(logits[0].isinf()).flatten().tolist() == masked


def test_penalties_of_places_and_of_rows_are_the_same() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.tensor([3, 0, 4])
    counts = torch.randint(-2, 4, (3, 30), generator=rng).clamp(min=0)
    repeated = (counts > 0) | (torch.rand(3, 30, generator=rng) < 0.3)
    strengths = torch.tensor([[1.3, 0.2, -0.4], [0.7, -1.0, 0.0], [1.0, 0.0, 2.0]])
    places = torch.randn(5, 30, generator=rng)
    places[3, :9] = float("-inf")
    whole = places.clone()
    penalties._penalize_places(places, rows, repeated, counts, strengths)
    penalties._penalize_rows(whole, rows, repeated, counts, strengths)
    assert torch.equal(places, whole)
