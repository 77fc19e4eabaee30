"""Recorded runs on the live view's page: what is told of each step is what was recorded."""

import base64
import gzip
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.step_messages import StepDetail
from experiments.run_folder import RECORDING, REQUESTS, STEPS
from experiments.tables import write_requests_parquet, write_steps_parquet
from experiments.view import main, make_page, page_server
from tests.engine.step_viewer import Viewer
from tests.parity.script_worlds import record
from tests.parity.test_replay import NUM_REQUESTS, crowded
from tests.simulator.small_runs import random_requests, simulate
from workbench.errors import ConfigError
from workbench.metrics import RunResult


def told_by(page: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(hello, ticks) that a page holds."""
    packed = re.search(r'id="recorded">([^<]+)<', page)
    assert packed is not None
    content = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return content["hello"], content["ticks"]


def seen(ticks: list[dict[str, Any]]) -> Iterator[tuple[list[float], Viewer]]:
    """(numbers of a step, what is known after it)."""
    viewer = Viewer()
    for tick in ticks:
        for numbers, detail in tick["steps"]:
            viewer.see(msgspec.json.decode(json.dumps(detail).encode(), type=StepDetail))
            yield numbers, viewer


@pytest.fixture(scope="module", params=[1, 2], ids=["sync", "async"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / RECORDING).write_bytes(record(crowded(request.param), seed=4))
    return folder


def test_a_recording_is_told_with_rows_and_blocks(recorded: Path) -> None:
    hello, ticks = told_by(make_page(recorded))
    assert (hello["num_kv_blocks"], hello["block_size"]) == (24, 4)
    assert hello["no_blocks"] is None
    assert not hello["notes"]
    reasons: list[str] = []
    most_users = 0
    for numbers, viewer in seen(ticks):
        _, _, _, running, _, used, tokens, prefill, decode, *_ = numbers
        assert len(viewer.running) == running
        assert sum(row[0] for row in viewer.rows.values()) == tokens == prefill + decode
        held = {block for table in viewer.tables.values() for block in table}
        assert len(held) == used == sum(state > 1 for state in viewer.states)
        most_users = max(most_users, max(viewer.states) - 1)
        reasons = [reason for _, reason in viewer.events]
    assert most_users > 1
    assert reasons.count("preempted") > 3
    assert sum(reason != "preempted" for reason in reasons) == NUM_REQUESTS
    ended = [one for tick in ticks for one in tick["ended"]]
    assert sum(len(tick["ttft"]) for tick in ticks) >= len(ended) - 1
    assert all(one["e2e"] >= (one["ttft"] or 0) >= 0 for one in ended)


def test_a_window_begins_with_everything(recorded: Path) -> None:
    _, ticks = told_by(make_page(recorded, start=0, num_steps=40))
    whole = [(numbers[0], viewer.rows, viewer.tables) for numbers, viewer in seen(ticks)]
    hello, ticks = told_by(make_page(recorded, start=20, num_steps=10))
    part = [(numbers[0], viewer.rows, viewer.tables) for numbers, viewer in seen(ticks)]
    assert [step for step, _, _ in part] == list(range(20, 30))
    assert part == whole[20:30]
    assert "Steps 20 to 29 of" in hello["notes"]


def test_a_recording_that_is_decided_otherwise_is_shown_up_to_there(tmp_path: Path) -> None:
    # its queue is not named in the recording, so the replay takes another one
    (tmp_path / RECORDING).write_bytes(record(replace(crowded(), queue="sjf"), seed=4))
    hello, ticks = told_by(make_page(tmp_path))
    found = re.search(r"Only steps before (\d+) are shown", hello["notes"])
    assert found is not None
    assert [tick["steps"][0][0][0] for tick in ticks] == list(range(int(found[1])))


def test_a_recording_itself_can_be_named(recorded: Path) -> None:
    assert told_by(make_page(recorded / RECORDING))[1]


@pytest.fixture(scope="module", params=["plenty", "few"])
def simulated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("simulated")
    num_blocks = {"plenty": 1000, "few": 40}[request.param]
    result = simulate(random_requests(3, 30, rate=40.0), num_blocks=num_blocks)
    write_requests_parquet(folder / REQUESTS, result.records)
    write_steps_parquet(folder / STEPS, result.steps)
    return folder, result


def test_tables_tell_of_requests_and_tokens(simulated: tuple[Path, RunResult]) -> None:
    folder, result = simulated
    hello, ticks = told_by(make_page(folder))
    assert "no recording" in hello["no_blocks"]
    assert len(ticks) == len(result.steps)
    assert [tick["steps"][0][0][6] for tick in ticks] == result.steps.scheduled_tokens.tolist()
    computed: dict[str, int] = {}
    for numbers, viewer in seen(ticks):
        assert sum(not row[1] for row in viewer.rows.values()) <= numbers[8]
        assert len(viewer.running) <= numbers[3] + numbers[4] + 1
        assert not viewer.tables
        computed |= {name: row[2] for name, row in viewer.rows.items()}
    assert computed == {
        r.request_id: r.prompt_tokens + len(r.token_times_s) - 1 for r in result.records
    }
    waits = [seconds for tick in ticks for _, seconds in tick["ttft"]]
    expected = [r.token_times_s[0] - r.arrival_s for r in result.records]
    np.testing.assert_allclose(sorted(waits), sorted(expected))
    assert sum(tick["itl"][0] for tick in ticks if tick["itl"]) == sum(
        len(r.token_times_s) - 1 for r in result.records
    )
    assert sum(len(tick["ended"]) for tick in ticks) == len(result.records)


def test_a_window_of_tables(simulated: tuple[Path, RunResult]) -> None:
    folder, _ = simulated
    whole = [
        (numbers, {n: row[2] for n, row in viewer.rows.items() if not row[1]})
        for numbers, viewer in seen(told_by(make_page(folder))[1])
    ]
    part = [
        (numbers, {n: row[2] for n, row in viewer.rows.items() if not row[1]})
        for numbers, viewer in seen(told_by(make_page(folder, start=25, num_steps=30))[1])
    ]
    assert part == whole[25:55]


def test_the_page_is_written(recorded: Path, tmp_path: Path, capsys: Any) -> None:
    assert main([str(recorded), "--out", str(tmp_path / "run.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert "connect-src &#x27;none&#x27;" in page
    assert told_by(page)[1]


def test_the_page_is_served() -> None:
    with page_server("<p>a run</p>", "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.server_address[1]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/view", timeout=20) as answer:
                assert answer.read() == b"<p>a run</p>"
        finally:
            server.shutdown()
            thread.join(timeout=20)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["{empty}"], "has no requests.parquet"),
        (["{run}", "--start", "-1"], "--start -1"),
        (["{run}", "--steps", "0"], "--steps 0"),
        (["{run}", "--start", "99999"], "none of them from step 99999 on"),
        (["{run}", "--replica", "5"], "0 steps of replica 5 (a load test has none"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(
    arguments: list[str],
    told: str,
    simulated: tuple[Path, RunResult],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"empty": tmp_path, "run": simulated[0]}
    assert main([word.format(**places) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_told() -> None:
    with (
        page_server("", "127.0.0.1", 0) as server,
        pytest.raises(ConfigError, match="cannot listen"),
    ):
        page_server("", "127.0.0.1", server.server_address[1])
