"""Reader of ShareGPT conversations; arrivals come from an arrival process.

A JSON list of {"conversations": [{"from": "human" | "gpt" | …, "value": text}, …]}. Without a
tokenizer a text counts ceil(characters / chars_per_token) tokens, at least 1. The turns of a
conversation are a session: they share their growing prefix through ids of 16-token blocks.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import WorkloadError
from workbench.workload.arrivals import Arrivals
from workbench.workload.base import FloatArray, IntArray
from workbench.workload.bounds import check_instance, check_integer, check_number
from workbench.workload.durations import ConstantDuration, Durations
from workbench.workload.sessions import (
    SessionPlan,
    SessionWorkload,
    place_sessions,
    session_blocks,
)
from workbench.workload.synthetic import Stream, random_streams
from workbench.workload.trace import find_trace
from workbench.workload.trace_file import read_text

HINT = (
    "download ShareGPT_V3_unfiltered_cleaned_split.json from https://huggingface.co/datasets/"
    "anon8231489123/ShareGPT_Vicuna_unfiltered and set workload.path=FILE"
)
ASSISTANTS = frozenset({"gpt", "chatgpt", "assistant", "bing", "bard"})

Turns = list[tuple[int, int]]  # tokens of the new text and of the answer, turn by turn


class ShareGPTTrace(SessionWorkload):
    """ShareGPT conversations as sessions, in the order of the file.

    `arrivals` places the conversations; a further turn comes `think_time` after the answer before
    it. With `multi_turn` false only first turns are sent. `rate_scale`: conversations start this
    many times as fast. `start`, `duration` [s, before scaling]: only conversations that start in
    this window, which becomes time 0. `max_requests` counts turns.
    Attribute `num_skipped`: conversations without a question that is answered.
    """

    def __init__(
        self,
        path: str,
        *,
        arrivals: Arrivals,
        seed: int,
        traces_dir: str | None = None,
        chars_per_token: float = 4.0,
        multi_turn: bool = True,
        think_time: Durations | None = None,
        block_size: int = 16,
        rate_scale: float = 1.0,
        max_requests: int | None = None,
        start: float = 0.0,
        duration: float | None = None,
    ) -> None:
        check_instance("arrivals", arrivals, Arrivals)
        check_number("chars_per_token", chars_per_token, above=0)
        check_integer("block_size", block_size, at_least=1)
        check_number("rate_scale", rate_scale, above=0)
        think_time = ConstantDuration(0.0) if think_time is None else think_time
        check_instance("think_time", think_time, Durations)
        found, self.num_skipped = read_conversations(find_trace(path, traces_dir), chars_per_token)
        if not multi_turn:
            found = [turns[:1] for turns in found]
        rngs = random_streams(seed)
        if start or duration is not None:
            times = arrivals.times(len(found), rngs[Stream.ARRIVALS])
            first, last = _window(times, len(found), start, duration)
            found, arrivals = found[first:last], _At(times[first:last] - start)
        if max_requests is not None:
            found = _cut(found, check_integer("max_requests", max_requests, at_least=1))
        plan, outputs = _plan(found, block_size, think_time, rngs[Stream.THINKING])
        starts, waits = place_sessions(plan, arrivals, rngs[Stream.ARRIVALS], rate_scale)
        super().__init__(plan.columns(outputs), plan.turns, starts, waits)


class _At(Arrivals):
    """Times that are known already."""

    def __init__(self, seconds: FloatArray) -> None:
        self.seconds = seconds

    def times(self, n: int, rng: np.random.Generator) -> FloatArray:
        return self.seconds[:n]


def read_conversations(path: Path, chars_per_token: float) -> tuple[list[Turns], int]:
    """The answered turns of each conversation, and how many conversations have none."""
    text = read_text(path, HINT)
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise WorkloadError(
            f"{path}, line {line}: not valid JSON ({getattr(error, 'msg', 'too deep')}); repair "
            "the file, or fetch it again if it is cut off"
        ) from None
    if not isinstance(items, list):
        raise WorkloadError(
            f"{path} holds a {type(items).__name__}, but it must be a JSON list of conversations; "
            f"{HINT}"
        )
    conversations = [_turns(item, i, path, chars_per_token) for i, item in enumerate(items)]
    answered = [turns for turns in conversations if turns]
    if not answered:
        raise WorkloadError(f"{path} holds no conversation with an answer; {HINT}")
    return answered, len(conversations) - len(answered)


def _turns(item: Any, number: int, path: Path, chars_per_token: float) -> Turns:
    messages = item.get("conversations") if isinstance(item, dict) else None
    if not isinstance(messages, list):
        raise WorkloadError(
            f"{path}, conversation {number}: no list 'conversations'; correct or remove it"
        )
    turns: Turns = []
    asked = 0  # tokens of text that no answer follows yet
    for message in messages:
        speaker, text = (
            (message.get("from"), message.get("value")) if isinstance(message, dict) else (0, 0)
        )
        if not isinstance(speaker, str) or not isinstance(text, str):
            raise WorkloadError(
                f"{path}, conversation {number}: a message needs the texts 'from' and 'value'; "
                "correct or remove it"
            )
        tokens = max(1, math.ceil(len(text) / chars_per_token))
        if speaker not in ASSISTANTS:
            asked += tokens
        elif asked:
            turns.append((asked, tokens))
            asked = 0
        # an answer to nothing (a conversation cut at its start) is left out
    return turns


def _window(
    times: FloatArray, num_conversations: int, start: float, duration: float | None
) -> tuple[int, int]:
    """First and last (excluded) conversation of the window."""
    check_number("start", start, at_least=0)
    if len(times) < num_conversations:
        raise WorkloadError(
            "workload.start and workload.duration need arrivals at given times, which a closed "
            "loop does not have; use workload.max_requests"
        )
    first, last = int(np.searchsorted(times, start)), len(times)
    if duration is not None:
        check_number("duration", duration, above=0)
        last = int(np.searchsorted(times, start + duration))
    if first == last:
        raise WorkloadError(
            f"no conversation starts in the window from {start:g} s, they start from "
            f"{times[0]:g} s to {times[-1]:g} s; change workload.start or workload.duration"
        )
    return first, last


def _cut(conversations: list[Turns], max_requests: int) -> list[Turns]:
    """Whole conversations up to `max_requests` turns, the last one cut short if need be."""
    ends = np.cumsum([len(turns) for turns in conversations])
    count = int(np.searchsorted(ends, max_requests)) + 1
    chosen = conversations[:count]
    excess = int(ends[len(chosen) - 1]) - max_requests
    if excess > 0:
        chosen[-1] = chosen[-1][:-excess]
    return chosen


def _plan(
    conversations: list[Turns],
    block_size: int,
    think_time: Durations,
    rng: np.random.Generator,
) -> tuple[SessionPlan, IntArray]:
    """Plan the sessions; a prompt is all that was said before, and the new text."""
    turns, prompts, outputs = [], [], []
    for conversation in conversations:
        context = 0
        for turn, (asked, answered) in enumerate(conversation):
            turns.append(turn)
            prompts.append(context + asked)
            outputs.append(answered)
            context += asked + answered
    turn_array, output_array = np.array(turns, np.int64), np.array(outputs, np.int64)
    prompt_array = np.array(prompts, np.int64)
    nothing = np.zeros_like(turn_array)
    hash_ids, output_hash_ids = session_blocks(
        turn_array, prompt_array, output_array, block_size, nothing, nothing, own_first=0
    )
    plan = SessionPlan(
        turns=turn_array,
        think_times=think_time.sample(len(turns), rng),
        num_prompt_tokens=prompt_array,
        hash_ids=hash_ids,
        hash_block_size=block_size,
        output_hash_ids=output_hash_ids,
    )
    return plan, output_array
