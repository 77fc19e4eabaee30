"""The requests of a measured run as a workload: lengths and blocks of the file that was sent.

Knows which line of the file is which request. It does not know how they are served.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from experiments.measured.run_files import MeasuredRun
from workbench.errors import ConfigError
from workbench.workload.base import ListWorkload, WorkloadRequest
from workbench.workload.block_trace import BlockTrace


def workload_of(run: MeasuredRun, file: Path) -> ListWorkload:
    """The measured requests, to arrive when they reached the engine (`door_s`), from time 0 on.

    Args:
        run: The measured run. A request whose answer ended before its time is sent with the length
            that it had; one without an answer is not sent.
        file: JSON lines with input_toks, output_toks and either the ids of blocks (see BlockTrace)
            or input_tok_ids, the prompt itself; with neither, prompts share nothing.

    Raises:
        ConfigError: The file does not hold these requests, with these lengths.
    """
    requests = run.requests
    sent = _with_blocks(file) if _names_blocks(file) else _with_tokens(file)
    rows = _rows(run, len(sent), file)
    times = requests["door_s"] - requests["door_s"].min()
    made = []
    for place, row in enumerate(rows):
        name, at = requests["request_id"].iloc[place], float(times.iloc[place])
        one = replace(_as_served(requests.iloc[place], sent[row], file), request_id=name)
        made.append(replace(one, arrival_time=at))
    return ListWorkload(sorted(made, key=lambda item: item.arrival_time))


def _rows(run: MeasuredRun, num_sent: int, file: Path) -> list[int]:
    """Line of the file, from 0, of every measured request.

    The number that its id ends with; where those are no lines of the file, its own place.
    """
    requests = run.requests
    expected = len(requests) + run.num_failed
    # the first requests of a longer file may have been sent
    if num_sent != expected and not num_sent > expected == run.meta.get("num_requests"):
        raise ConfigError(
            f"requests={file} holds {num_sent} requests and the measured run {expected} others:"
            " give the file that was sent"
        )
    found = [re.search(r"(\d+)$", name) for name in requests["request_id"]]
    rows = [int(number[1]) for number in found if number]
    if len(set(rows)) == len(requests) and max(rows) < expected:
        return rows
    return requests["place"].tolist()


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


def _as_served(measured: pd.Series, sent: WorkloadRequest, file: Path) -> WorkloadRequest:
    """The request with the length of the answer that it had.

    Raises:
        ConfigError: It is another request.
    """
    answer = int(measured["output_tokens"])
    for name, theirs, ours in (
        ("prompt_tokens", measured["prompt_tokens"], sent.num_prompt_tokens),
        ("output_tokens", answer, min(answer, sent.num_output_tokens)),
    ):
        if theirs != ours:
            raise ConfigError(
                f"request {measured['request_id']} was measured with {name}={theirs}, and"
                f" requests={file} says {ours}: give the file that was sent"
            )
    if answer == sent.num_output_tokens:
        return sent
    return replace(sent, num_output_tokens=answer, output_hash_ids=_shorter(sent, answer))


def _shorter(sent: WorkloadRequest, answer: int) -> tuple[int, ...] | None:
    """The ids of the blocks that a shorter answer fills."""
    if sent.output_hash_ids is None or sent.hash_ids is None:
        return sent.output_hash_ids
    full = (sent.num_prompt_tokens + answer) // sent.hash_block_size
    return sent.output_hash_ids[: max(0, full - len(sent.hash_ids))]
