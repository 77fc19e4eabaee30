"""The requests of a measured run as a workload: lengths and blocks of the file that was sent.

Knows which line of the file is which request. It does not know how they are served.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from workbench.errors import ConfigError
from workbench.workload.base import ListWorkload, WorkloadRequest
from workbench.workload.block_trace import BlockTrace


def workload_of(requests: pd.DataFrame, file: Path) -> ListWorkload:
    """The measured requests, to arrive when they reached the engine (`door_s`), from time 0 on.

    Args:
        requests: Of the measured run.
        file: JSON lines with input_toks, output_toks and either the ids of blocks (see BlockTrace)
            or input_tok_ids, the prompt itself; with neither, prompts share nothing.

    Raises:
        ConfigError: The file does not hold these requests, with these lengths.
    """
    sent = _with_blocks(file) if _names_blocks(file) else _with_tokens(file)
    rows = [_row(name, place) for place, name in enumerate(requests["request_id"])]
    if sorted(rows) != list(range(len(sent))):
        raise ConfigError(
            f"requests={file} holds {len(sent)} requests and the measured run {len(requests)}"
            " others: give the file that was sent"
        )
    times = requests["door_s"] - requests["door_s"].min()
    made = []
    for place, row in enumerate(rows):
        _check_lengths(requests.iloc[place], sent[row], file)
        name, at = requests["request_id"].iloc[place], float(times.iloc[place])
        made.append(replace(sent[row], request_id=name, arrival_time=at))
    return ListWorkload(sorted(made, key=lambda item: item.arrival_time))


def _names_blocks(file: Path) -> bool:
    """Whether the first request names its blocks; a file that cannot be read is the reader's."""
    try:
        with file.open(encoding="utf-8") as lines:
            return "prompt_block_ids16" in next(lines, "")
    except (OSError, UnicodeDecodeError):
        return True


def _with_blocks(file: Path) -> list[WorkloadRequest]:
    columns = BlockTrace(str(file)).columns
    return list(columns.requests(map(str, range(len(columns)))))


def _with_tokens(file: Path) -> list[WorkloadRequest]:
    sent: list[WorkloadRequest] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            tokens = row.get("input_tok_ids")
            sent.append(
                WorkloadRequest(
                    str(len(sent)),
                    0.0,
                    int(row["input_toks"]),
                    int(row["output_toks"]),
                    prompt_token_ids=tuple(map(int, tokens)) if tokens else None,
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"requests={file}, line {number} is no request: {error!r}") from None
    return sent


def _row(request_id: str, place: int) -> int:
    """Line of the file, from 0: the number that the id ends with, else the request's own place."""
    found = re.search(r"(\d+)$", request_id)
    return int(found[1]) if found else place


def _check_lengths(measured: pd.Series, sent: WorkloadRequest, file: Path) -> None:
    for name, value in (
        ("prompt_tokens", sent.num_prompt_tokens),
        ("output_tokens", sent.num_output_tokens),
    ):
        if measured[name] != value:
            raise ConfigError(
                f"request {measured['request_id']} was measured with {name}={measured[name]}, and"
                f" requests={file} says {value}: give the file that was sent"
            )
