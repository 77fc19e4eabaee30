"""What lies between a client and an engine: HTTP, tokens to text, events of a stream.

Knows four numbers, fitted to the designed runs: seconds before the engine, for a request and for a
token of its prompt, and seconds after it, for a step's outputs and for each of them. It has no
queue of its own: it works beside the engine, and is assumed to keep up with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.live_vllm.client import Answer
from simulator.calibration.least_squares import nonnegative_least_squares
from workbench.metrics import RequestRecord

Array = NDArray[np.float64]
OUTLIER = 3.0  # times the median error; further away a sample counts in proportion less
ROUNDS = 8


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """Delays, seconds.

    Attributes:
        request_s: From the client's send to the engine, for a request.
        prompt_token_s: In addition, for a token of its prompt.
        step_s: From the end of a step to the client, for a token.
        output_s: In addition, for every token that the step gave.
    """

    request_s: float = 0.0
    prompt_token_s: float = 0.0
    step_s: float = 0.0
    output_s: float = 0.0

    @classmethod
    def fit(
        cls, before: Sequence[tuple[int, float]], after: Sequence[tuple[int, float]]
    ) -> "FrontEnd":
        """From (prompt tokens, seconds before) of requests and (outputs of the step, seconds
        after) of tokens."""
        return cls(*_line(before), *_line(after))

    def arrival(self, sent_at: float, num_prompt_tokens: int) -> float:
        """When a request reaches the engine."""
        return sent_at + self.request_s + self.prompt_token_s * num_prompt_tokens

    def seen_by_clients(
        self, records: Sequence[RequestRecord], sent_at: Mapping[str, float]
    ) -> list[RequestRecord]:
        """Records of an engine, with the times of arrivals and tokens at the client's."""
        times = np.concatenate([r.token_times_s for r in records] or [np.empty(0)])
        ends, counts = np.unique(times, return_counts=True)
        return [self._seen(record, sent_at[record.request_id], ends, counts) for record in records]

    def _seen(
        self, record: RequestRecord, sent_at: float, ends: Array, counts: NDArray[np.intp]
    ) -> RequestRecord:
        outputs = counts[np.searchsorted(ends, record.token_times_s)]
        # a step with few outputs must not be seen before a step with many that came before it
        times = np.maximum.accumulate(record.token_times_s + self.step_s + self.output_s * outputs)
        finish = None if record.finish_s is None or not len(times) else float(times[-1])
        return replace(record, arrival_s=sent_at, finish_s=finish, token_times_s=times)

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def _line(samples: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Mean seconds as a constant and a slope, both of at least 0; stragglers count less."""
    if not samples:
        return 0.0, 0.0
    table = np.array(samples, dtype=np.float64)
    matrix = np.stack([np.ones(len(table)), table[:, 0]], axis=1)
    weights = np.ones(len(table))
    for _ in range(ROUNDS):
        root = np.sqrt(weights)
        found = nonnegative_least_squares(matrix * root[:, None], table[:, 1] * root)
        error = np.abs(matrix @ found - table[:, 1])
        limit = OUTLIER * max(float(np.median(error)), 1e-9)
        weights = np.minimum(1.0, limit / np.maximum(error, 1e-12))
    return float(found[0]), float(found[1])


def samples(
    answers: Sequence[Answer], engine: Mapping[str, RequestRecord], idle: bool
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """(before, after) as `FrontEnd.fit` takes them, of some requests.

    Args:
        answers: As the client saw them.
        engine: The same requests as the engine saw them, on the same clock.
        idle: Whether the engine was idle when they came: one that is not looks at a request only
            between two steps.
    """
    before = []
    times = np.concatenate([r.token_times_s for r in engine.values()] or [np.empty(0)])
    ends, counts = np.unique(times, return_counts=True)
    after: list[tuple[int, float]] = []
    for answer in answers:
        record = engine[answer.request_id]
        if idle:
            before.append((record.prompt_tokens, record.arrival_s - answer.sent_at))
        outputs = counts[np.searchsorted(ends, record.token_times_s)].tolist()
        delays = np.array(answer.token_times) - record.token_times_s
        after += list(zip(outputs, delays.tolist(), strict=True))
    return before, after
