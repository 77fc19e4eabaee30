"""A session against a small server: what is replayed, and what is refused."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from engine.workload_tokens import WorkloadTokens
from experiments.live_vllm.calibrate import LiveCalibrator
from experiments.live_vllm.compare import at_its_pace, capacity, compare
from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.probes import KINDS, probes
from experiments.live_vllm.requests import at_rate, of_probe, parts_of, shapes_of
from experiments.live_vllm.session import LiveSession
from experiments.run import compose_config
from simulator.calibration import Calibration
from simulator.calibration.jitter import Jitter
from simulator.calibration.machine_pace import MachinePace
from simulator.calibration.terms import Prices
from tests.experiments.live_vllm.fake_server import SETTINGS, FakeEngine, FakeServer
from workbench.config import SchedulerConfig
from workbench.errors import WorkloadError
from workbench.step_profile import MeasuredStep, StepShape
from workbench.workload.base import ListWorkload, WorkloadRequest

LIMITS = SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64, max_model_len=512)
ITEMS = [
    WorkloadRequest(str(n), 0.1 * n, 20 + 7 * n, 3 + n, hash_ids=(1, 2), hash_block_size=8)
    for n in range(8)
]


@pytest.fixture
def engine(tmp_path):
    return FakeEngine(tmp_path / "steps.jsonl")


def session_of(server, **settings):
    return LiveSession(server.url, server.engine.record, **settings)


def test_every_step_is_decided_alike_and_prefixes_are_found(engine):
    with FakeServer(engine) as server:
        session = session_of(server)
        served = session.serve(at_rate(ITEMS, 1e4, "burst", 500, seed=3), "burst")
    assert served.phase.difference is None
    assert served.phase.num_equal == served.phase.num_steps == len(served.phase.steps) > 10
    records = served.phase.records(0.0)
    assert set(records) == {f"burst-{n}" for n in range(8)}
    assert all(record.finish_reason == "length" for record in records.values())
    assert sum(record.cached_tokens for record in records.values()) > 0
    assert all(step.seconds > 0 and step.source == "burst" for step in served.phase.steps)


def test_a_step_that_was_decided_otherwise_is_found(engine):
    seen = []

    def mend(line):
        if line[0] == "schedule":
            seen.append(line)
            if len(seen) == 4:
                line[3][0] = (*line[3][0][:2], line[3][0][2] + 1, line[3][0][3])
        return line

    engine.mend = mend
    with FakeServer(engine) as server:
        session = session_of(server)
        served = session.serve(at_rate(ITEMS, 1e4, "a", 500, seed=3), "a")
        assert served.phase.difference is not None
        assert served.phase.difference.step == served.phase.num_equal == 3
        assert served.phase.difference.what.startswith("rows")
        assert served.phase.num_steps > 4
        with pytest.raises(
            ServerError,
            match="step 3 of a was decided otherwise than here: rows",
        ):
            session.serve(at_rate(ITEMS, 1e4, "b", 500, seed=4), "b")


def test_calibration_and_comparison(engine):
    with FakeServer(engine) as server:
        session = session_of(server)
        calibrator = LiveCalibrator(session, 500, seed=0)
        for number in range(2):
            calibrator.measure(number)
        calibration = calibrator.result({"date": "today"})
        most = capacity(ITEMS, session.settings, calibration.steps)
        served = [
            session.serve(at_rate(part, most, f"load.{n}", 500, seed=5 + n), "load")
            for n, part in enumerate(parts_of(ITEMS, 2))
        ]
    assert calibration.num_equal == calibration.num_steps > len(calibration.measured) > 100
    assert calibration.steps.facts["date"] == "today"
    result = compare("load", 1.0, served, session.settings, calibration, range(2))
    assert result.num_equal == result.num_steps
    assert result.errors["requests_matched"] == 8
    assert result.errors["finished_only_measured"] == 0
    assert len(result.measured.steps) == result.num_steps
    for side in (result.measured, result.simulated):
        first, second = side.requests[:4], side.requests[4:]
        assert second["arrival_s"].min() == pytest.approx(first["finish_s"].max())
        assert (side.requests["first_token_s"] > side.requests["arrival_s"]).all()
    hits = [s.counters["prefix_hit_tokens"] for s in (result.measured, result.simulated)]
    assert hits[0] > 0
    assert not result.is_probed
    # fixed work says that the machine was half as fast, and steps follow it
    steps = replace(calibration.steps, pace=MachinePace(1e-3, 1.5, 2.0), jitter_at_pace=Jitter())
    for part in served:
        part.phase.steps = [replace(step, pace=2e-3) for step in part.phase.steps]
        for shape, factor in ((StepShape(2, 50, [], 2), 2**1.5), (StepShape(0, 0, [(9, 0)]), 4)):
            slow = at_its_pace(part, steps, 0).step_time(shape)
            assert slow == pytest.approx(factor * steps.mean_s(shape))
    slow = compare(
        "load", 1.0, served, session.settings, replace(calibration, steps=steps), range(2)
    )
    assert slow.is_probed
    assert slow.errors == result.errors
    assert slow.errors_at_its_pace["e2e_mean_error"] > slow.errors["e2e_mean_error"]


@pytest.mark.parametrize("is_told", [True, False])
def test_a_window_without_steps_is_as_those_around_it(is_told):
    calibration = Calibration(
        Prices({"step": 1.0}), Prices({}), largest={"decodes": 1}, pace=MachinePace(1e-3, 1.0)
    )
    # the second was not told its pace
    paces = [1e-3, 0.0, 3e-3, 3e-3] if is_told else [0.0] * 4
    took = [1.0, 3.0, 3.0, 3.0]
    steps = [
        MeasuredStep(StepShape(1, 9, [], 1), seconds, pace=pace)
        for seconds, pace in zip(took, paces, strict=True)
    ]
    log = SimpleNamespace(start_s=np.array([0.5, 4.1, 4.5, 4.9]))
    part = SimpleNamespace(phase=SimpleNamespace(steps=steps, log=log))
    prices = at_its_pace(part, calibration, 0)
    seconds = []
    for now in (0.5, 1.5, 2.5, 3.5, 4.5, 5.5):
        prices.tell_time(now)
        seconds.append(prices.step_time(StepShape(1)))
    assert seconds == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0, 3.0])


def test_steps_are_told_the_pace_of_their_workers(engine):
    told = engine.record.with_name(f"{engine.record.name}.pace.0")
    now = time.monotonic()
    told.write_text("".join(f"{now + at / 10:.3f} {700_000 + at}\n" for at in range(-50, 600)))
    with FakeServer(engine) as server:
        served = session_of(server).serve(at_rate(ITEMS, 1e4, "a", 500, seed=3), "a")
    paces = [step.pace for step in served.phase.steps]
    assert len(paces) > 10
    assert all(7e-4 <= pace <= 7.01e-4 for pace in paces)
    assert paces == sorted(paces)


def test_somebody_elses_request(engine):
    with FakeServer(engine) as server:
        session = session_of(server)
        engine.submit("stranger", [1, 2, 3], 2)
        with pytest.raises(ServerError, match="somebody else"):
            session.serve(at_rate(ITEMS, 1e4, "a", 500, seed=3), "a")


def test_no_server(tmp_path):
    with pytest.raises(ServerError, match="no server answers at"):
        LiveSession("http://127.0.0.1:9", tmp_path / "steps")


def test_no_record(engine, tmp_path):
    with FakeServer(engine) as server, pytest.raises(ServerError, match="no steps"):
        LiveSession(server.url, tmp_path / "other")


def test_a_failed_request_names_itself(engine):
    with FakeServer(engine) as server:
        session = session_of(server, why_dead=lambda: "log")
        engine.refuse = 500
        with pytest.raises(ServerError, match=r"8 of 8 requests of a .* a-0: status 500"):
            session.serve(at_rate(ITEMS, 1e4, "a", 500, seed=3), "a")


def test_probes_fit_the_server_and_differ_by_round():
    rounds = [probes(LIMITS, number, seed=1) for number in range(KINDS)]
    for number, planned in enumerate(rounds):
        assert planned == probes(LIMITS, number, seed=1)
        kinds = {probe.kind for probe in planned}
        assert kinds == {"warm", "single", "batch", "burst", "trickle"}
        for probe in planned:
            assert all(s.prompt + s.output <= 512 and s.prompt > probe.shared for s in probe.shapes)
            assert probe.shared % 16 == 0
        if number:  # a round of short prompts may have nothing to share
            assert any(probe.shared for probe in planned)
        tokens = WorkloadTokens(500, 1)
        for probe in planned:
            prompts = [i.prompt_token_ids for i in of_probe(probe, "p", tokens, 0.0)]
            assert [len(p) for p in prompts] == [s.prompt for s in probe.shapes]
            assert len({p[: probe.shared] for p in prompts}) == 1
            assert len({p[probe.shared :] for p in prompts}) == len(prompts)
    assert len({tuple(planned) for planned in rounds}) == KINDS
    sizes = [len(probe.shapes) for planned in rounds for probe in planned]
    assert max(sizes) == 3 * SETTINGS["max_num_seqs"] or max(sizes) == 12


def test_loads_have_their_rate_and_tokens_of_their_own():
    slow, fast = (at_rate(ITEMS, rate, "x", 500, seed=1) for rate in (2.0, 20.0))
    assert slow[-1].arrival_time == pytest.approx(3.5)
    assert fast[-1].arrival_time == pytest.approx(0.35)
    assert [i.prompt_token_ids for i in slow] == [i.prompt_token_ids for i in fast]
    assert slow[0].prompt_token_ids[:16] == slow[5].prompt_token_ids[:16]
    assert min(min(i.prompt_token_ids) for i in slow) >= 3
    assert max(max(i.prompt_token_ids) for i in slow) < 500
    other = at_rate(ITEMS, 2.0, "x", 500, seed=2)
    assert other[0].prompt_token_ids != slow[0].prompt_token_ids
    assert WorkloadTokens(10, 0).prompt(ITEMS[0])


def test_workloads_that_cannot_be_sent():
    from experiments.assemble import part

    closed = part(compose_config(["workload=closed_loop", "workload.num_requests=500"]), "workload")
    with pytest.raises(WorkloadError, match="open-loop"):
        shapes_of(closed, 10_000)
    with pytest.raises(WorkloadError, match=r"'7' has 79 tokens, and the server takes 78"):
        shapes_of(ListWorkload(ITEMS), 78)
    with pytest.raises(WorkloadError, match="8 requests are too few for 5 parts"):
        parts_of(ITEMS, 5)
    at_once = [replace(item, arrival_time=0.0) for item in ITEMS]
    with pytest.raises(WorkloadError, match="different times"):
        parts_of(at_once, 2)
