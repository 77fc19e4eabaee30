"""A fit finds the prices of a made-up machine, says how good it is, and survives its file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.calibration import Calibration, fit
from simulator.calibration.calibration import FORMAT
from simulator.calibration.terms import Prices, distinct_context
from tests.simulator.calibration.worlds import (
    HOST_S,
    NOISE,
    designed,
    random_shape,
    recorded,
    true_s,
)
from workbench.errors import ConfigError
from workbench.step_profile import MeasuredStep, StepShape


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit(designed() + recorded(runs=8, steps=250), {"machine": "made up"})


def test_prices_are_those_of_the_machine(calibration: Calibration) -> None:
    rng = np.random.default_rng(99)
    shapes = [random_shape(rng) for _ in range(200)]
    errors = [calibration.typical_s(shape) / true_s(shape) - 1 for shape in shapes]
    assert np.abs(errors).mean() < 0.03
    assert calibration.host(shapes[0]) == pytest.approx(HOST_S, rel=0.1)


def test_uneven_contexts_have_a_price_where_they_cost_something() -> None:
    def steps(price: float) -> list[MeasuredStep]:
        rng = np.random.default_rng(7)
        found = []
        for number in range(200):
            rows = int(rng.integers(1, 17))
            contexts = rng.integers(10, 500, rows)
            longest, total = int(contexts.max()), int(contexts.sum())
            shape = StepShape(rows, total, [], rows, longest_decode=longest)
            seconds = true_s(shape) + price * (rows * longest - total)
            found.append(MeasuredStep(shape, seconds, HOST_S, f"run/{number % 4}"))
        return found

    uneven, even = fit(steps(5e-7)), fit(steps(0.0))
    price = uneven.device.curves["decode_padding"]
    assert (price(3000) - price(1000)) / 2000 == pytest.approx(5e-7, rel=0.03)
    assert uneven.device.seconds["decode_context"] == pytest.approx(3e-8, rel=0.2)
    free = even.device.curves.get("decode_padding")
    assert free is None or free(3000) < 3e-6
    shape = StepShape(8, 800, [], 8, longest_decode=300)
    assert uneven.typical_s(shape) - even.typical_s(shape) == pytest.approx(8e-4, rel=0.05)


def test_decodes_after_prompts_find_caches_cold() -> None:
    def steps(price: float) -> list[MeasuredStep]:
        rng, before, found = np.random.default_rng(5), 0, []
        for number in range(400):
            shape = random_shape(rng)
            shape.prefill_tokens_before = before
            tokens = 0 if shape.prefills else min(before, 64)
            seconds = true_s(shape) + price * tokens
            found.append(MeasuredStep(shape, seconds, HOST_S, f"run/{number % 4}"))
            before = sum(query for query, _ in shape.prefills)
        return found

    cold, warm = fit(steps(8e-6)), fit(steps(0.0))
    unpriced = warm.device.curves.get("cold")
    assert unpriced is None or unpriced(300) < 2e-5
    for prefills, before, extra in (([], 40, 32e-5), ([], 300, 51e-5), ([(30, 0)], 300, 0.0)):
        shape = StepShape(4, 800, prefills, 4)
        after = replace(shape, prefill_tokens_before=before)
        found = cold.typical_s(after) - cold.typical_s(shape)
        assert found == pytest.approx(extra, rel=0.15)
    far, seen = (StepShape(4, 800, [], 4, prefill_tokens_before=n) for n in (9999, 400))
    assert cold.typical_s(far) == pytest.approx(cold.typical_s(seen), rel=0.02)


def test_keys_that_rows_share_have_a_price_of_their_own() -> None:
    def priced(shape: StepShape, read_s: float) -> float:
        return true_s(shape) + read_s * (shape.decode_context - shape.shared_context)

    def steps(most_shared: float) -> list[MeasuredStep]:
        rng = np.random.default_rng(11)
        found = []
        for number in range(240):
            rows, context = int(rng.integers(1, 17)), int(rng.integers(10, 500))
            shared = int(most_shared * rng.uniform() * context) * (rows - 1)
            shape = StepShape(rows, rows * context, [], rows, shared_context=shared)
            found.append(MeasuredStep(shape, priced(shape, 1e-7), HOST_S, f"run/{number % 4}"))
        return found

    found, unshared = fit(steps(0.9)), fit(steps(0.0))
    assert found.device.seconds["distinct_context"] == pytest.approx(1e-7, rel=0.05)
    assert found.device.seconds["decode_context"] == pytest.approx(3e-8, rel=0.1)
    for shared in (0, 3000):
        shape = StepShape(8, 4000, [], 8, shared_context=shared)
        assert found.typical_s(shape) == pytest.approx(priced(shape, 1e-7), rel=0.02)
    # nothing was seen of sharing: no key may seem cheaper for it
    assert "distinct_context" not in unshared.device.seconds
    shape = StepShape(8, 4000, [], 8)
    assert unshared.typical_s(shape) == pytest.approx(priced(shape, 1e-7), rel=0.02)


def test_a_few_steps_that_share_say_nothing_of_the_price() -> None:
    steps = recorded(runs=4, steps=200)
    shape = StepShape(8, 4000, [], 8, shared_context=16)
    steps += [MeasuredStep(shape, true_s(shape), HOST_S, "run/0")] * 5
    found = fit(steps)
    assert "distinct_context" not in found.device.seconds
    shared = StepShape(8, 4000, [], 8, shared_context=3000)
    assert found.typical_s(shared) == found.typical_s(StepShape(8, 4000, [], 8))


def test_only_decodes_that_can_share_are_cheaper() -> None:
    assert distinct_context(StepShape(4, 4000, [], 4)) == 4000
    assert distinct_context(StepShape(4, 4000, [], 4, shared_context=1500)) == 2500
    assert distinct_context(StepShape(4, 4000, [], 4, shared_context=9999)) == 1000
    assert distinct_context(StepShape(1, 69, [], 1, shared_context=15)) == 69
    # what is shared is shared by decodes and chunks alike
    mixed = StepShape(4, 4000, [(500, 1000), (500, 2000)], 6, shared_context=2000)
    assert distinct_context(mixed) == 3000
    assert distinct_context(StepShape(0, 0, [(500, 1000)], 1, shared_context=800)) == 0


def test_padding_that_ends_is_priced_as_it_is() -> None:
    # a backend that makes two groups of rows once too much would be padded
    rng = np.random.default_rng(17)
    steps = []
    for number in range(300):
        rows = int(rng.integers(2, 17))
        contexts = rng.integers(10, 500, rows)
        longest, total = int(contexts.max()), int(contexts.sum())
        shape = StepShape(rows, total, [], rows, longest_decode=longest)
        seconds = true_s(shape) + 1e-6 * min(rows * longest - total, 1024)
        steps.append(MeasuredStep(shape, seconds, HOST_S, f"run/{number % 4}"))
    found = fit(steps)

    def padded_s(longest: int) -> float:
        even, uneven = (StepShape(8, 1600, [], 8, longest_decode=n) for n in (200, longest))
        return found.typical_s(uneven) - found.typical_s(even)

    assert padded_s(280) == pytest.approx(6.4e-4, rel=0.1)
    assert padded_s(440) == pytest.approx(1.024e-3, rel=0.05)


def test_passes_of_attention_have_prices_of_their_own() -> None:
    def own_s(shape: StepShape) -> float:
        extra = 8e-4 * (shape.num_decodes > 0)
        return true_s(shape) + extra + 4e-4 * (shape.num_decodes > 0 and bool(shape.prefills))

    rng = np.random.default_rng(23)
    shapes = [random_shape(rng) for _ in range(400)]
    steps = [MeasuredStep(s, own_s(s), HOST_S, f"run/{i % 4}") for i, s in enumerate(shapes)]
    found = fit(steps)
    chunk, decodes = [(100, 50)], (8, 1600)
    for shape in (
        StepShape(0, 0, chunk, 1),
        StepShape(*decodes, [], 8),
        StepShape(*decodes, chunk, 9),
    ):
        assert found.typical_s(shape) == pytest.approx(own_s(shape), rel=0.01)


def test_steps_of_an_idle_engine_are_priced_without_the_host() -> None:
    rng = np.random.default_rng(31)
    shapes = [StepShape(0, 0, [(int(n), 0)], 1) for n in rng.integers(8, 400, 60)]
    first = [
        MeasuredStep(shape, true_s(shape) - HOST_S, source=f"first/{i % 4}")
        for i, shape in enumerate(shapes)
    ]
    found = fit(recorded(runs=4, steps=150) + first)
    assert found.jitter.num_runs == 4  # idle engines are no recordings of their own
    assert set(found.residuals) == {"first", "run"}
    assert found.facts["steps"] == {"first": 60, "run": 600}
    assert found.typical_s(shapes[0]) == pytest.approx(true_s(shapes[0]), rel=0.06)
    assert found.host(shapes[0]) == pytest.approx(HOST_S, rel=0.15)


def test_a_slow_round_does_not_make_its_shapes_dear() -> None:
    # only the slow round has long contexts, as in a calibration whose rounds differ
    rng = np.random.default_rng(5)
    steps = []
    for name, pace, longest in (("0", 1.0, 200), ("1", 1.1, 2000), ("2", 0.97, 200)):
        for kind in ("grid", "run"):
            for _ in range(80):
                rows = int(rng.integers(1, 17))
                low = longest // 2 if kind == "grid" else 1
                shape = StepShape(rows, rows * int(rng.integers(low, longest)), [], rows)
                seconds = true_s(shape) - (HOST_S if kind == "grid" else 0.0)
                host_s = 0.0 if kind == "grid" else HOST_S * pace
                steps.append(MeasuredStep(shape, seconds * pace, host_s, f"{kind}/{name}"))
    found = fit(steps)
    assert found.device.seconds["decode_context"] == pytest.approx(3e-8, rel=0.05)
    shape = StepShape(8, 1600, [], 8)
    assert found.typical_s(shape) == pytest.approx(true_s(shape), rel=0.02)


def test_more_work_never_takes_less_time(calibration: Calibration) -> None:
    price = calibration.typical_s
    times = [price(StepShape(n, 50 * n, [], n)) for n in range(1, 40)]
    assert times == sorted(times)
    times = [price(StepShape(0, 0, [(n, 100)], 1)) for n in range(1, 600)]
    assert times == sorted(times)


def test_beyond_the_data_prices_go_on_in_a_line(calibration: Calibration) -> None:
    price = calibration.device.curves["tokens"]
    slope = price(2001) - price(2000)
    assert price(4000) == pytest.approx(price(2000) + 2000 * slope)
    assert calibration.beyond(StepShape(1, 20, [], 1)) <= 1
    assert calibration.beyond(StepShape(64, 640, [], 64)) == pytest.approx(4.0)


def test_noise_and_drift_are_told_apart(calibration: Calibration) -> None:
    jitter = calibration.jitter
    assert jitter.num_runs == 8
    assert jitter.autocorrelation(4) == pytest.approx(NOISE.autocorrelation(4), abs=0.1)
    assert calibration.jitter_at_pace == jitter  # nobody told the pace
    assert 0.015 < jitter.run_sd < 0.05
    assert jitter.quantiles[7] == pytest.approx(0.06, abs=0.02)


def test_residuals_are_stated_in_and_out_of_sample(calibration: Calibration) -> None:
    assert set(calibration.residuals) == {"grid", "run"}
    for both in calibration.residuals.values():
        inside, outside = both["in_sample"], both["out_of_sample"]
        assert 0 < inside["mean_absolute_error"] < 0.1
        assert outside["mean_absolute_error"] < 0.12
        assert inside["steps"] == outside["steps"]


def test_steps_that_something_held_up_do_not_bend_prices() -> None:
    steps = recorded(runs=4, steps=200)
    held = [
        MeasuredStep(s.shape, s.seconds * (6.0 if i % 25 == 0 else 1.0), s.host_s, s.source)
        for i, s in enumerate(steps)
    ]
    shape = StepShape(8, 1600, [(100, 0)], 9)
    assert fit(held).typical_s(shape) == pytest.approx(fit(steps).typical_s(shape), rel=0.03)
    assert fit(held).mean_factor_of_prompts > fit(steps).mean_factor_of_prompts + 0.1


def test_each_kind_of_steps_takes_its_mean_time_and_all_together_what_was_measured() -> None:
    rng = np.random.default_rng(2)
    stalled = [
        replace(s, seconds=s.seconds * (4.0 if s.shape.prefills and rng.random() < 0.05 else 1.0))
        for s in recorded(runs=4, steps=400)
    ]
    found = fit(stalled)
    assert found.mean_factor < 1.05 < 1.1 < found.mean_factor_of_prompts
    for has_prompts in (False, True):
        kind = [s for s in stalled if bool(s.shape.prefills) == has_prompts]
        predicted = sum(found.mean_s(step.shape) for step in kind)
        assert predicted == pytest.approx(sum(step.seconds for step in kind))


def test_a_file_holds_everything(calibration: Calibration, tmp_path: Path) -> None:
    file = tmp_path / "folder" / "calibration.json"
    calibration.save(file)
    again = Calibration.load(file)
    shape = StepShape(8, 1600, [(100, 0)], 9)
    assert again.mean_s(shape) == pytest.approx(calibration.mean_s(shape), rel=1e-4)
    assert again.jitter.run_sd == pytest.approx(calibration.jitter.run_sd, rel=1e-4)
    assert again.facts["machine"] == "made up"
    assert again.facts["steps"] == {"grid": 60, "run": 2000}
    assert not list(file.parent.glob("*.part"))


def test_without_a_host_all_is_the_device() -> None:
    steps = [MeasuredStep(s.shape, s.seconds) for s in recorded(runs=1, steps=100)]
    found = fit(steps)
    assert found.host == Prices({})
    assert found.typical_s(steps[0].shape) > 0


def test_what_is_no_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 measured steps are too few"):
        fit(designed()[:2])
    with pytest.raises(ConfigError, match="does not exist"):
        Calibration.load(tmp_path / "none.json")
    file = tmp_path / "other.json"
    for text, message in (
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        (json.dumps({"format": 99}), "has format 99"),
        (json.dumps({"format": FORMAT}), "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            Calibration.load(file)


def test_the_file_of_one_recording_says_that_it_does_not_know_the_error_of_a_run(
    tmp_path: Path,
) -> None:
    file = tmp_path / "calibration.json"
    fit(designed() + recorded(runs=1, steps=100)).save(file)
    assert json.loads(file.read_text())["jitter"]["run_sd"] is None
    assert Calibration.load(file).jitter.known_run_sd is None


def test_a_number_that_rests_on_one_recording_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    fit(designed() + recorded(runs=1, steps=100)).save(file)
    document = json.loads(file.read_text())
    for told, known in (((0.0, 1), None), ((0.02, 4), 0.02)):
        document["jitter"] |= {"run_sd": told[0], "num_runs": told[1]}
        file.write_text(json.dumps(document))
        assert Calibration.load(file).jitter.known_run_sd == known
