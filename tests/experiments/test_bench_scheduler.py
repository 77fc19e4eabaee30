"""The scheduler benchmark: its setting, the names it prints, and what it refuses."""

import json

import pytest

from experiments import bench_scheduler
from experiments.bench_scheduler import bench_decode, main, make_scheduler, random_requests

NAMES = {
    "running",
    "prefix_caching",
    "us_per_request_per_step",
    "us_per_request_per_step_median",
    "decode_steps",
    "requests_per_cpu_s",
    "us_add_request",
    "us_abort_waiting",
    "us_abort_waiting_priority",
    "calibration_ns",
}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_scheduler, "NUM_WAITING", 200)
    monkeypatch.setattr(bench_scheduler, "NUM_ABORTS", 20)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("flag", ["--prefix-caching", "--no-prefix-caching"])
def test_it_prints_its_figures_as_json(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--running", "4", flag]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) >= NAMES
    assert figures["running"] == 4
    assert figures["prefix_caching"] == (flag == "--prefix-caching")
    assert all(figures[name] > 0 for name in NAMES - {"prefix_caching"})


def test_the_setting_is_the_one_agreed_on() -> None:
    assert (bench_scheduler.BLOCK_SIZE, bench_scheduler.NUM_BLOCKS) == (16, 100_000)
    assert bench_scheduler.TOKEN_BUDGET == 8192
    assert bench_scheduler.NUM_WAITING == 20_000
    requests = random_requests(300, seed=0, prefix_caching=False)
    prompts = [r.num_prompt_tokens for r in requests]
    answers = [r.max_tokens for r in requests]
    assert 100 <= min(prompts) < 130
    assert 1000 < max(prompts) <= 1024
    assert 100 <= min(answers) < 110
    assert 390 < max(answers) <= 400
    assert all(r.block_hashes is None for r in requests)
    assert all(r.block_hashes for r in random_requests(3, seed=0, prefix_caching=True))
    scheduler = make_scheduler(64, True)
    assert scheduler.config.max_num_batched_tokens == 8192
    assert scheduler.config.max_num_seqs == 64
    assert scheduler.kv_cache_manager.pool.num_blocks == 100_000


def test_steps_are_counted_while_all_requests_decode_together() -> None:
    figures = bench_decode(3, prefix_caching=False)
    shortest = min(r.max_tokens for r in random_requests(3, 0, False))
    # From the step after the last prompt to the one with the first last token.
    assert shortest - 3 <= figures["decode_steps"] <= shortest


@pytest.mark.parametrize("running", ["0", "-3", "100000"])
def test_a_number_of_requests_out_of_range_is_refused(
    running: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--running", running]) == 2
    assert f"--running={running} must be between 1 and 1400" in capsys.readouterr().err
