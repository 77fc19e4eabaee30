"""The sampler: the law of what it draws, what a draw depends on, and rows it must not trust."""

from typing import Any

import numpy as np
import pytest
import torch

from engine.sampler import Sampler, SamplerOutput
from engine.sampling_batch import SamplingBatch
from tests.engine.plain_sampling import probabilities
from workbench.sampling_params import SamplingParams

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB = 24
SPREAD = np.random.default_rng(5).normal(size=VOCAB) * 1.5


def sample(
    rows: Any,
    params: list[SamplingParams],
    *,
    positions: Any = None,
    seed: int = 0,
    use_kernels: bool | None = None,
) -> SamplerOutput:
    """Sample rows [N, V] with one request each; the output on the CPU."""
    logits = torch.tensor(np.array(rows), dtype=torch.float32, device=DEVICE)
    batch = SamplingBatch(len(params), logits.shape[1], DEVICE, seed)
    for slot, each in enumerate(params):
        batch.add(slot, str(slot), each, [])
    counts = np.zeros(len(params), dtype=np.int64) if positions is None else np.array(positions)
    plan = batch.plan(np.arange(len(params)), counts)
    output = Sampler(use_kernels)(logits, plan)
    logprobs = None if output.logprobs is None else output.logprobs.to_host()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    is_empty = None if output.is_empty is None else output.is_empty.cpu()
    return SamplerOutput(output.token_ids.cpu(), output.is_valid.cpu(), logprobs, is_empty)


def draw_often(logits: np.ndarray, params: SamplingParams, times: int) -> np.ndarray:
    """How often each token is drawn by one request at positions 0 … times - 1."""
    batch = SamplingBatch(1, len(logits), DEVICE)
    batch.add(0, "request", params, [])
    slots, positions = np.zeros(times, dtype=np.int64), np.arange(times)
    rows = torch.tensor(logits, dtype=torch.float32, device=DEVICE).repeat(times, 1)
    output = Sampler()(rows, batch.plan(slots, positions))
    assert output.is_valid.all()
    return np.bincount(output.token_ids.cpu().numpy(), minlength=len(logits))


def chi_square(counts: np.ndarray, law: np.ndarray) -> float:
    """Standard deviations by which the statistic exceeds its mean; tokens of law 0 never occur."""
    assert not counts[law == 0].any()
    possible = law > 0
    expected = law[possible] * counts.sum()
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    freedom = max(int(possible.sum()) - 1, 1)
    return float((statistic - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 5},
        {"top_k": 1},
        {"top_p": 0.6},
        {"top_p": 1e-9},
        {"min_p": 0.1},
        {"top_k": 12, "top_p": 0.8, "min_p": 0.02, "temperature": 1.3},
    ],
)
def test_tokens_follow_the_law_that_was_asked_for(settings: dict[str, Any]) -> None:
    params = SamplingParams(seed=7, **settings)
    law = probabilities(SPREAD.astype(np.float32), params)
    assert chi_square(draw_often(SPREAD, params, 4000), law) < 4.0


@pytest.mark.parametrize("settings", [{}, {"top_k": 90}, {"top_p": 0.9}])
@pytest.mark.parametrize("vocab", [65, 400])
def test_large_vocabularies_follow_the_law_too(settings: dict[str, Any], vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    logits = rng.normal(size=vocab).astype(np.float32)
    params = SamplingParams(seed=3, **settings)
    assert chi_square(draw_often(logits, params, 3000), probabilities(logits, params)) < 4.0


def test_the_place_within_a_group_says_nothing_about_the_group() -> None:
    pairs = np.zeros((2, 2))
    batch = SamplingBatch(1, 128, DEVICE)
    batch.add(0, "request", SamplingParams(seed=1), [])
    logits = torch.full((4000, 128), float("-inf"), device=DEVICE)
    logits[:, [0, 1, 64, 65]] = 0.0
    plan = batch.plan(np.zeros(4000, dtype=np.int64), np.arange(4000))
    for token_id in Sampler()(logits, plan).token_ids.tolist():
        pairs[token_id // 64, token_id % 64] += 1
    assert chi_square(pairs.ravel(), np.full(4, 0.25)) < 4.0


def test_requests_of_one_batch_draw_independently() -> None:
    params = [SamplingParams() for _ in range(4000)]
    output = sample(np.tile(SPREAD[:6], (4000, 1)), params)
    law = probabilities(SPREAD[:6], params[0])
    assert chi_square(np.bincount(output.token_ids.numpy(), minlength=6), law) < 4.0


def test_equal_logits_at_the_edge_of_top_k_are_all_kept() -> None:
    logits = np.array([3.0, 1.0, 1.0, 1.0, 0.0])
    counts = draw_often(logits, SamplingParams(top_k=2), 500)
    assert (counts[:4] > 0).all()
    assert counts[4] == 0


def test_greedy_takes_the_largest_and_tiny_temperatures_are_greedy() -> None:
    rows = np.random.default_rng(0).normal(size=(6, VOCAB))
    for params in (SamplingParams(temperature=0), SamplingParams(temperature=1e-6)):
        output = sample(rows, [params] * 6)
        assert output.token_ids.tolist() == rows.argmax(1).tolist()
        assert output.is_valid.all()
        assert output.logprobs is None


def test_a_draw_depends_on_seed_and_position_only() -> None:
    rng = np.random.default_rng(1)
    row = rng.normal(size=VOCAB)
    params = SamplingParams(seed=11, top_p=0.95)
    alone = [
        sample([row], [params], positions=[position]).token_ids.item() for position in range(20)
    ]
    mates = [SamplingParams(temperature=0), SamplingParams(top_k=3), SamplingParams(seed=12)]
    for position in range(20):
        rows = [rng.normal(size=VOCAB), row, rng.normal(size=VOCAB), rng.normal(size=VOCAB)]
        crowd = sample(
            rows, [mates[0], params, *mates[1:]], positions=[3, position, 1, position], seed=99
        )
        assert crowd.token_ids[1].item() == alone[position]
    assert len(set(alone)) > 3


def test_requests_without_a_seed_take_the_engines() -> None:
    rows = np.zeros((40, 1000))
    first = sample(rows, [SamplingParams()] * 40, seed=1).token_ids
    assert torch.equal(first, sample(rows, [SamplingParams()] * 40, seed=1).token_ids)
    assert (first != sample(rows, [SamplingParams()] * 40, seed=2).token_ids).sum() > 35
    assert len(set(first.tolist())) > 30


@pytest.mark.parametrize("seed", [-(2**63), 2**63, 2**64 - 1, 0])
def test_seeds_of_64_bits_are_taken(seed: int) -> None:
    params = [SamplingParams(seed=seed)]
    assert (
        sample([SPREAD], params).token_ids.tolist() == sample([SPREAD], params).token_ids.tolist()
    )


def test_noise_of_the_last_bit_does_not_change_a_draw() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(200, VOCAB)).astype(np.float32)
    params = [SamplingParams(seed=i) for i in range(200)]
    shaken = rows * (1 + rng.uniform(-1e-7, 1e-7, rows.shape).astype(np.float32))
    assert torch.equal(sample(rows, params).token_ids, sample(shaken, params).token_ids)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0}, {}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2}, {"logprobs": 2}],
)
def test_a_poisoned_row_is_told_and_no_other_one(poison: float, settings: dict[str, Any]) -> None:
    rows = np.random.default_rng(3).normal(size=(5, VOCAB))
    params = [SamplingParams(seed=i, **settings) for i in range(5)]
    clean = sample(rows, params)
    rows[2, 9] = poison
    output = sample(rows, params)
    assert output.is_valid.tolist() == [True, True, False, True, True]
    others = [0, 1, 3, 4]
    assert output.token_ids[others].tolist() == clean.token_ids[others].tolist()
    assert 0 <= output.token_ids[2].item() < VOCAB


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_left_to_choose_is_not_valid(temperature: float) -> None:
    params = SamplingParams(
        temperature=temperature, allowed_token_ids=[4], bad_words_token_ids=[[4]]
    )
    nan = np.full(VOCAB, np.nan)
    biased = SamplingParams(temperature=temperature, logit_bias={1: 1.0})
    output = sample([SPREAD, SPREAD, nan], [params, SamplingParams(), biased])
    assert output.is_valid.tolist() == [False, True, False]
    assert output.is_empty is not None
    assert output.is_empty.tolist() == [True, False, False]
    fine = sample([SPREAD], [biased])
    assert fine.is_empty is None or not fine.is_empty.any()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_impossible_tokens_are_no_poison(temperature: float) -> None:
    row = np.full(VOCAB, -np.inf)
    row[[3, 5]] = 1.0
    output = sample([row], [SamplingParams(temperature=temperature)])
    assert output.is_valid.all()
    assert output.token_ids.item() in (3, 5)


def test_logprobs_are_the_models_own() -> None:
    params = [
        SamplingParams(temperature=0, logprobs=2, logit_bias={4: 100.0}),
        SamplingParams(temperature=0),
        SamplingParams(seed=1, top_k=2, temperature=0.3, logprobs=0, repetition_penalty=1.5),
        SamplingParams(temperature=0, logprobs=-1),
    ]
    rows = np.random.default_rng(4).normal(size=(4, VOCAB)).astype(np.float32)
    output = sample(rows, params)
    assert output.logprobs is not None
    told = output.logprobs.by_row
    assert list(told) == [0, 2, 3]
    exact = torch.tensor(rows).double().log_softmax(-1)
    for row, position in told.items():
        assert position.token_ids[0] == output.token_ids[row].item()
        for token_id, logprob in zip(position.token_ids, position.logprobs, strict=True):
            assert logprob == pytest.approx(exact[row, token_id].item(), abs=1e-5)
        assert position.rank == int((rows[row] >= rows[row, position.token_ids[0]]).sum())
    assert told[0].token_ids[0] == 4
    assert told[0].token_ids[1:] == exact[0].topk(2).indices.tolist()
    assert [len(told[row].token_ids) for row in told] == [3, 1, 1 + VOCAB]


def test_edits_do_not_reach_the_logprobs_where_every_row_wants_them() -> None:
    params = [SamplingParams(temperature=0, logprobs=1, logit_bias={2: 50.0})] * 2
    output = sample([SPREAD, SPREAD], params)
    assert output.logprobs is not None
    exact = torch.tensor(SPREAD, dtype=torch.float32).log_softmax(0)
    for position in output.logprobs.by_row.values():
        assert position.token_ids == [2, int(SPREAD.argmax())]
        assert position.logprobs[0] == pytest.approx(exact[2].item(), abs=1e-5)


KERNEL_CASES = [
    {},
    {"temperature": 0.4},
    {"top_k": 3},
    {"top_p": 0.5},
    {"min_p": 0.3, "top_k": 7, "top_p": 0.9},
]


# numpy, which interprets kernels where there is no GPU, warns of what IEEE arithmetic allows
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("settings", KERNEL_CASES)
def test_kernels_draw_from_the_same_law(settings: dict[str, Any]) -> None:
    pytest.importorskip("triton")
    rows = np.tile(SPREAD, (8, 1))
    params = [SamplingParams(seed=i, **settings) for i in range(8)]
    output = sample(rows, params, use_kernels=True)
    law = probabilities(SPREAD.astype(np.float32), params[0])
    assert output.is_valid.all()
    assert (law[output.token_ids.numpy()] > 0).all()
    again = sample(rows[:2], [SamplingParams(temperature=0), params[1]], use_kernels=True)
    assert again.token_ids.tolist() == [int(SPREAD.argmax()), output.token_ids[1].item()]


def test_an_empty_step_is_an_empty_answer() -> None:
    batch = SamplingBatch(2, VOCAB, DEVICE)
    nobody = np.zeros(0, dtype=np.int64)
    output = Sampler()(torch.zeros(0, VOCAB, device=DEVICE), batch.plan(nobody, nobody))
    assert output.token_ids.shape == output.is_valid.shape == (0,)
