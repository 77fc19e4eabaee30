"""Records and step logs as tables: parquet files, pandas frames, JSON.

Knows the columns of ``requests.parquet`` and ``steps.parquet`` and how to go there and back.
Latencies come from ``workbench.metrics``; none is defined here. Arrow arrays are made straight
from numpy, so a list column of 20 million gaps costs no Python object a token.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.errors import WorkbenchError
from workbench.metrics import RequestColumns, RequestRecord, StepLog
from workbench.metrics.step_log import COLUMNS as STEP_COLUMNS

REQUEST_COLUMNS = (
    "request_id",
    "replica",
    "arrival_s",
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
    "preemptions",
    "finish_reason",
    "itl_s",
    "client_id",
    "priority",
    "finish_detail",
)
DERIVED_LATENCIES = ("queue_s", "ttft_s", "tpot_s", "e2e_s", "normalized_latency_s")


def requests_table(records: Sequence[RequestRecord] | RequestColumns) -> pa.Table:
    """Arrow table of ``REQUEST_COLUMNS``, one row a request; missing times are null.

    ``itl_s`` is list<double> of length max(tokens - 1, 0).
    """
    requests = _columns(records)
    if len(requests.itl_s) > np.iinfo(np.int32).max:
        raise WorkbenchError(
            f"{len(requests.itl_s)} token gaps do not fit one list column (limit 2^31 - 1); "
            "split the run into shorter ones"
        )
    offsets = pa.array(requests.itl_offsets.astype(np.int32))
    itl = pa.ListArray.from_arrays(offsets, pa.array(requests.itl_s))
    columns = {name: getattr(requests, name) for name in REQUEST_COLUMNS if name != "itl_s"}
    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    for name in ("request_id", "finish_reason", "client_id", "finish_detail"):
        arrays[name] = pa.array(columns[name], type=pa.string())
    arrays["itl_s"] = itl
    return pa.table({name: arrays[name] for name in REQUEST_COLUMNS})


def steps_table(steps: StepLog) -> pa.Table:
    """Arrow table of ``STEP_COLUMNS``, one row a step."""
    columns = dict(steps.columns())
    return pa.table({name: columns[name] for name in STEP_COLUMNS})


def write_requests_parquet(
    path: str | os.PathLike[str],
    records: Sequence[RequestRecord] | RequestColumns,
    **more: np.ndarray,
) -> None:
    """Write ``requests.parquet``; ``RequestColumns`` are taken as they are, records gathered.

    ``more``: further columns of shape (requests,), which no reader needs.
    """
    table = requests_table(records)
    for name, values in more.items():
        table = table.append_column(name, pa.array(values, from_pandas=True))
    _write(table, path, plain=["itl_s.list.element"])


def write_steps_parquet(path: str | os.PathLike[str], steps: StepLog) -> None:
    _write(steps_table(steps), path, plain=["start_s", "duration_s"])


def _write(table: pa.Table, path: str | os.PathLike[str], plain: list[str]) -> None:
    # a dictionary of float times that never repeat only costs time and space
    names = [c for c in table.column_names if c not in plain and not c.endswith("_s")]
    pq.write_table(table, os.fspath(path), compression="zstd", use_dictionary=names)


def read_request_columns(path: str | os.PathLike[str]) -> RequestColumns:
    """Columns back from ``requests.parquet``.

    Token times are first token + running sum of the gaps: equal to the written ones up to
    float64 rounding (about 1e-15 relative).
    """
    table = _with_details(pq.read_table(os.fspath(path))).combine_chunks()
    first = _floats(table, "first_token_s")
    itl = table["itl_s"].combine_chunks()
    gaps = itl.flatten().to_numpy(zero_copy_only=False)
    lengths = itl.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = np.zeros(len(first) + 1, dtype=np.int64)
    np.cumsum(np.where(np.isnan(first), 0, lengths + 1), out=offsets[1:])
    times = np.empty(offsets[-1])
    heads = np.zeros(len(times), dtype=np.bool_)
    heads[offsets[:-1][~np.isnan(first)]] = True
    times[heads] = first[~np.isnan(first)]
    times[~heads] = gaps
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        np.cumsum(times[start:end], out=times[start:end])
    strings = ("request_id", "finish_reason", "client_id", "finish_detail")
    floats = ("arrival_s", "first_scheduled_s", "finish_s")
    columns: dict[str, Any] = {n: table[n].to_pylist() for n in strings}
    columns |= {n: _floats(table, n) for n in floats}
    done = {*strings, *floats, "first_token_s", "itl_s"}
    columns |= {n: table[n].to_numpy() for n in REQUEST_COLUMNS if n not in done}
    return RequestColumns(**columns, token_times_s=times, token_offsets=offsets)


def _with_details(table: pa.Table) -> pa.Table:
    """The table with `finish_detail`, which the files of earlier versions lack."""
    if "finish_detail" in table.column_names:
        return table
    return table.append_column("finish_detail", pa.nulls(table.num_rows, pa.string()))


def _floats(table: pa.Table, name: str) -> np.ndarray:
    """Column as float64; null becomes NaN, also where the whole column is null."""
    return table[name].cast(pa.float64()).to_numpy()


def read_requests(path: str | os.PathLike[str]) -> list[RequestRecord]:
    """Records back from ``requests.parquet``, as ``read_request_columns`` but one object each."""
    return read_request_columns(path).records()


def read_steps(path: str | os.PathLike[str]) -> StepLog:
    """Step log back from ``steps.parquet``, equal to the written one."""
    table = pq.read_table(os.fspath(path), columns=list(STEP_COLUMNS))
    return StepLog.from_columns({name: table[name].to_numpy() for name in STEP_COLUMNS})


def requests_frame(records: Sequence[RequestRecord] | RequestColumns) -> pd.DataFrame:
    """The columns of ``requests.parquet`` plus ``DERIVED_LATENCIES``; missing times are NaN.

    ``itl_s`` holds numpy views into one array. Figures take this frame.
    """
    requests = _columns(records)
    columns: dict[str, Any] = {n: getattr(requests, n) for n in REQUEST_COLUMNS if n != "itl_s"}
    columns["itl_s"] = _views(requests.itl_s, requests.itl_offsets)
    frame = pd.DataFrame({name: columns[name] for name in REQUEST_COLUMNS})
    return frame.assign(**{name: getattr(requests, name) for name in DERIVED_LATENCIES})


def steps_frame(steps: StepLog) -> pd.DataFrame:
    """The columns of ``steps.parquet`` as a frame."""
    columns = dict(steps.columns())
    return pd.DataFrame({name: columns[name] for name in STEP_COLUMNS})


def read_requests_frame(path: str | os.PathLike[str]) -> pd.DataFrame:
    """``requests_frame`` of a parquet file."""
    return requests_frame(read_request_columns(path))


def read_steps_frame(path: str | os.PathLike[str]) -> pd.DataFrame:
    """``steps_frame`` of a parquet file."""
    return pq.read_table(os.fspath(path), columns=list(STEP_COLUMNS)).to_pandas()


def _columns(records: Sequence[RequestRecord] | RequestColumns) -> RequestColumns:
    if isinstance(records, RequestColumns):
        return records
    return RequestColumns.from_records(records)


def _views(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    out = np.empty(len(offsets) - 1, dtype=object)
    bounds = offsets.tolist()
    for i in range(len(out)):
        out[i] = values[bounds[i] : bounds[i + 1]]
    return out


def json_safe(value: Any) -> Any:
    """The same value with numpy scalars and arrays as Python ones, and NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(k): json_safe(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, list | tuple):
        return [json_safe(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_summary_json(path: str | os.PathLike[str], summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``: strict JSON, keys in the order given.

    The file appears whole or not at all: it is written aside and then renamed.
    """
    target = Path(path)
    aside = target.with_name(target.name + ".part")
    aside.write_text(json.dumps(json_safe(summary), indent=2, allow_nan=False) + "\n")
    aside.replace(target)
