"""Length distributions keep to their limits, shapes and correlations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkloadError
from workbench.workload.lengths import (
    ConditionalQuantileLengths,
    FixedLengths,
    LognormalLengths,
    QuantileLengths,
    RankCorrelatedLengths,
    UniformLengths,
)

whole = st.integers(1, 5000)
ranges = st.tuples(whole, whole).map(sorted)
distributions = st.one_of(
    st.builds(FixedLengths, whole),
    ranges.map(lambda r: UniformLengths(*r)),
    st.builds(
        lambda m, s, r: LognormalLengths(m, s, *r), st.floats(1, 999), st.floats(0, 3), ranges
    ),
    st.lists(whole, min_size=1, max_size=50).map(QuantileLengths.from_lengths),
)


@settings(deadline=None, max_examples=100)
@given(distributions, st.integers(0, 100), st.integers(0, 2**32), st.floats(-1, 1))
def test_lengths_are_positive_integers_and_reproducible(lengths, n, seed, correlation):
    def draw(distribution, prompts=None):
        return distribution.sample(n, np.random.default_rng(seed), prompts)

    drawn = draw(lengths)
    assert drawn.shape == (n,)
    assert drawn.dtype == np.int64
    assert (drawn >= 1).all()
    assert drawn.tobytes() == draw(lengths).tobytes()
    ordered = draw(RankCorrelatedLengths(lengths, correlation), np.arange(n))
    assert sorted(ordered) == sorted(drawn)


def test_uniform_and_lognormal_stay_in_their_limits():
    rng = np.random.default_rng(0)
    uniform = UniformLengths(3, 6).sample(1000, rng)
    assert set(uniform.tolist()) == {3, 4, 5, 6}
    lognormal = LognormalLengths(100, 1.0, minimum=50, maximum=200).sample(1000, rng)
    assert (lognormal.min(), lognormal.max()) == (50, 200)
    assert np.median(LognormalLengths(100, 1.0).sample(20_000, rng)) == pytest.approx(100, rel=0.05)


def test_quantiles_give_back_the_observed_distribution():
    observed = np.random.default_rng(1).geometric(0.01, 5000)
    drawn = QuantileLengths.from_lengths(observed.tolist()).sample(50_000, np.random.default_rng(2))
    for level in (0.1, 0.5, 0.9):
        assert np.quantile(drawn, level) == pytest.approx(np.quantile(observed, level), rel=0.05)


def test_conditional_quantiles_follow_the_prompt():
    lengths = ConditionalQuantileLengths([10, 20], [0.0, 1.0], [[1, 1], [5, 9], [100, 100]])
    prompts = np.repeat([1, 10, 11, 20, 21, 500], 200)
    drawn = lengths.sample(len(prompts), np.random.default_rng(0), prompts).reshape(6, 200)
    assert set(drawn[:2].ravel()) == {1}
    assert set(drawn[2:4].ravel()) == {5, 6, 7, 8, 9}
    assert set(drawn[4:].ravel()) == {100}


@pytest.mark.parametrize("correlation", [-1.0, -0.5, 0.0, 0.7, 1.0])
def test_rank_correlation_is_the_one_asked_for(correlation):
    rng = np.random.default_rng(3)
    prompts = LognormalLengths(1000, 1.0).sample(20_000, rng)
    outputs = RankCorrelatedLengths(LognormalLengths(1000, 1.0), correlation).sample(
        20_000, rng, prompts
    )
    found = np.corrcoef(np.log(prompts), np.log(outputs))[0, 1]
    assert found == pytest.approx(correlation, abs=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedLengths(0), "tokens is 0, but it must be at least 1"),
        (lambda: UniformLengths(5, 4), "high is 4, but it must be at least 5"),
        (lambda: LognormalLengths(10, -1), "sigma is -1"),
        (lambda: LognormalLengths(10, 1, 5, 4), "maximum is 4"),
        (lambda: QuantileLengths([0, 0.5], [1, 2]), "levels must rise from 0 to 1"),
        (lambda: QuantileLengths([0, 1], [1, 2, 3]), "3 values are given for 2 levels"),
        (lambda: QuantileLengths([0, 1], [2, 1]), "values must be lengths >= 1"),
        (lambda: QuantileLengths([0, 1], [0, 1]), "values must be lengths >= 1"),
        (lambda: QuantileLengths.from_lengths([]), "lengths is empty"),
        (lambda: ConditionalQuantileLengths([2, 1], [0, 1], []), "prompt_edges do not rise"),
        (lambda: ConditionalQuantileLengths([1], [0, 1], [[1, 2]]), "values has 1 rows"),
        (lambda: RankCorrelatedLengths(FixedLengths(1), 1.5), "correlation is 1.5"),
        (lambda: RankCorrelatedLengths(7, 0), "lengths is a int, but it must be a Lengths"),
    ],
)
def test_numbers_out_of_range_are_named(make, message):
    with pytest.raises(WorkloadError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize(
    "lengths",
    [ConditionalQuantileLengths([], [0, 1], [[1, 2]]), RankCorrelatedLengths(FixedLengths(1), 0)],
)
def test_lengths_that_depend_on_prompts_are_for_outputs_only(lengths):
    with pytest.raises(WorkloadError, match="use it for output_lengths only"):
        lengths.sample(3, np.random.default_rng(0))
