"""The files of one measured run: which requests were sent, when each token came, how it was set up.

Knows the formats that shared measurements come in (a folder of meta.json, requests.jsonl,
config.json and timeseries.csv). It does not know models, GPUs or simulations.

Times are made seconds since the first request reached the engine. `queued_ts` is when the engine
took a request in, which it does between two steps; the client's clock (`arrival_time`) is another
one. Where both are there, the client's clock tells when the request reached the engine's door, up
to an offset: nobody is taken in before.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import ConfigError

META, REQUESTS, CONFIG, TIMELINE = "meta.json", "requests.jsonl", "config.json", "timeseries.csv"
_TIMES = ("queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")
_NEEDED = ("request_id", "input_toks", "output_toks", *_TIMES)
_TIMELINE = {
    "t": "time_s",
    "running": "running",
    "waiting": "waiting",
    "kv_cache_pct": "kv_usage",
    "gen_throughput": "output_tokens_per_s",
}


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run.

    Attributes:
        folder: Where it lies.
        meta: The server's settings.
        config: config.json beside it, empty if there is none.
        requests: Columns of requests.parquet as far as they are known, `door_s`: when the request
            reached the engine, and `place`: its line, from 0. Those without an answer are left out.
        num_failed: Requests without an answer.
        timeline: Of the server's own statistics (see figures.side_by_side); None: none.
    """

    folder: Path
    meta: dict[str, Any]
    config: dict[str, Any]
    requests: pd.DataFrame
    timeline: pd.DataFrame | None
    num_failed: int = 0


def read_measured(folder: Path) -> MeasuredRun:
    """Read a folder.

    Raises:
        ConfigError: It is missing, lacks a file or a column, or holds a value that is none.
    """
    if not folder.is_dir():
        raise ConfigError(f"measured={folder} does not exist: give the folder of a measured run")
    if not (folder / META).exists() and (runs := _runs_below(folder)):
        raise ConfigError(f"measured={folder} holds runs in folders of their own: name {runs[0]}")
    meta = _read_json(folder / META)
    config = _read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    requests, num_failed = _read_requests(folder / REQUESTS)
    timeline = _read_timeline(folder / TIMELINE)
    return MeasuredRun(folder, meta, config, requests, timeline, num_failed)


def _runs_below(folder: Path) -> list[Path]:
    """Measured runs one or two levels further down."""
    return sorted(file.parent for level in ("*", "*/*") for file in folder.glob(f"{level}/{META}"))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist: give the folder of a measured run") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold a JSON object")
    return content


def _read_requests(file: Path) -> tuple[pd.DataFrame, int]:
    """(requests with an answer, how many had none)."""
    if not file.is_file():
        raise ConfigError(f"{file} does not exist: give the folder of a measured run")
    try:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
        frame = pd.DataFrame(rows)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read as JSON lines: {error}") from None
    missing = [name for name in _NEEDED if name not in frame]
    if missing:
        raise ConfigError(f"{file} lacks the column {missing[0]}: it needs {', '.join(_NEEDED)}")
    numbers = frame[list(_NEEDED[1:])].apply(pd.to_numeric, errors="coerce")
    numbers[list(_TIMES)] = numbers[list(_TIMES)].where(numbers[list(_TIMES)] > 0)
    answered = ~(numbers["output_toks"] == 0)
    num_failed = int((~answered).sum())
    frame, numbers = frame[answered].reset_index(), numbers[answered].reset_index(drop=True)
    if numbers[["input_toks", "output_toks", "queued_ts"]].isna().any(axis=None):
        raise ConfigError(f"{file} holds a request without lengths or queued_ts: correct the file")
    if numbers.empty:
        raise ConfigError(f"{file} holds no request with an answer: give a run that was served")
    start = float(numbers["queued_ts"].min())
    requests = pd.DataFrame(
        {
            "request_id": frame["request_id"].astype(str),
            "arrival_s": numbers["queued_ts"] - start,
            "first_scheduled_s": numbers["scheduled_ts"] - start,
            "first_token_s": numbers["first_token_ts"] - start,
            "finish_s": numbers["last_token_ts"] - start,
            "prompt_tokens": numbers["input_toks"].astype(int),
            "output_tokens": numbers["output_toks"].astype(int),
            "place": frame["index"],
        }
    )
    door = _door(frame, requests["arrival_s"].to_numpy())
    return requests.assign(door_s=door), num_failed


def _door(frame: pd.DataFrame, queued_s: np.ndarray) -> np.ndarray:
    """When each request reached the engine, seconds; as late as it was taken in at the latest."""
    if "arrival_time" not in frame:
        return queued_s
    sent = pd.to_numeric(frame["arrival_time"], errors="coerce").to_numpy(dtype=np.float64)
    if np.isnan(sent).any():
        return queued_s
    # the way from the client's clock to the engine: an engine that idles takes in at once
    delay = queued_s - sent
    way = float(np.percentile(delay, 5))
    door: np.ndarray = np.minimum(sent + way, queued_s)
    return door


def _read_timeline(file: Path) -> pd.DataFrame | None:
    if not file.is_file():
        return None
    try:
        table = pd.read_csv(file)
    except (OSError, ValueError):
        return None
    known = {theirs: ours for theirs, ours in _TIMELINE.items() if theirs in table}
    if "t" not in known or len(known) < 2:
        return None
    timeline = table[list(known)].rename(columns=known).astype(float)
    if "kv_usage" in timeline:
        timeline["kv_usage"] /= 100.0
        if not timeline["kv_usage"].any():  # a server that did not say
            timeline = timeline.drop(columns="kv_usage")
    return timeline
