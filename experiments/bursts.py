"""A designed workload that shows an engine every size of batch within a few seconds.

Bursts of one request, of two, and so on up to three times as many as the engine runs at once: a
server with a queue is full all the time. Half of a burst comes together, the rest while it is
served, so that prompts meet batches of all sizes. By chance prompts of a burst are short ones for
the most part or of all lengths, so that a full batch is seen with few keys and with many; and the
requests of every other burst begin with the same text: keys that rows share cost less than others.
Lengths follow from the engine's limits, and from nothing that is simulated later.
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np

from simulator.calibration import Calibration
from workbench.step_profile import StepShape
from workbench.workload.base import ListWorkload, WorkloadRequest

SHORTEST = 8
LONGEST_PROMPT = 0.6  # of a request's limit
SHARING = 0.5  # of all bursts
LONGEST_SHARED = 0.5  # of the longest prompt
LONGEST_ANSWER = 0.2
MOST_ANSWER = 128
EVEN_LENGTHS = 0.5  # of all bursts: prompts of all lengths alike, instead of many short ones
OVERFULL = 3
MOST_TIME = 0.5  # of all seconds: a burst that would take longer has fewer requests …
LEAST_OVERFULL = 1.5  # … but enough for full batches, however slow the engine is
LATE = 0.7  # of a burst's own time, over which its second half comes
# of a burst's own time, until the next one: an engine that has become idle gets several prompts
# at once, and computes them in steps of their own
PAUSE = 0.15
MOST_REQUESTS = 5000


def burst_workload(
    model: Calibration,
    num_tokens: int,
    num_rows: int,
    length: int,
    seconds: float,
    seed: int,
    block_size: int = 16,
) -> ListWorkload:
    """Bursts that take about `seconds` to serve.

    Args:
        model: What steps are expected to take.
        num_tokens, num_rows: Of a step, at most.
        length: Of a request, at most, tokens.
        seed: Of everything that is drawn.
        block_size: Tokens of a KV block.
    """
    rng = np.random.default_rng(seed)
    levels = burst_sizes(num_rows)
    requests: list[WorkloadRequest] = []
    ids = count()
    now = 0.0
    while now < seconds and len(requests) < MOST_REQUESTS:
        for size in _order(levels, rng, is_first=not requests):
            shared = _shared_blocks(length, block_size, rng, ids)
            least = len(shared) * block_size
            limits = (num_tokens, num_rows, length)
            burst, took = _burst(model, *limits, size, least, MOST_TIME * seconds, rng)
            for at, lengths in zip(_arrivals(took, len(burst), rng), burst, strict=True):
                own = islice(ids, lengths[0] // block_size - len(shared))
                name, blocks = str(len(requests)), (*shared, *own)
                requests.append(WorkloadRequest(name, now + at, *lengths, None, blocks, block_size))
            now += (1.0 + PAUSE) * took
            if now >= seconds:
                break
    return ListWorkload(requests)


def burst_sizes(num_rows: int) -> list[int]:
    """1, 2, 4 … up to more than there are rows."""
    sizes = [2**i for i in range(num_rows.bit_length()) if 2**i < num_rows]
    return [*sizes, num_rows, OVERFULL * num_rows]


def _order(sizes: Sequence[int], rng: np.random.Generator, is_first: bool) -> list[int]:
    """By chance; at first the largest, as there may be time for one only, and it ends as others."""
    *smaller, largest = sizes
    first = [largest] if is_first else []
    return [*first, *rng.permutation(smaller if is_first else sizes).tolist()]


def _arrivals(took: float, size: int, rng: np.random.Generator) -> list[float]:
    """Seconds after the burst's begin: half of it at once, the rest while it is served."""
    times = np.sort(rng.uniform(0, LATE * took, size))
    times[: (size + 1) // 2] = 0.0
    return [float(at) for at in times]


def _shared_blocks(
    length: int, block_size: int, rng: np.random.Generator, ids: Iterator[int]
) -> list[int]:
    """Ids of the blocks that a burst's prompts begin with; none for some of the bursts."""
    most = int(LONGEST_SHARED * LONGEST_PROMPT * length) // block_size
    if rng.random() >= SHARING or not most:
        return []
    return list(islice(ids, int(rng.integers(1, most, endpoint=True))))


def _burst(
    model: Calibration,
    num_tokens: int,
    num_rows: int,
    length: int,
    size: int,
    least: int,
    most_s: float,
    rng: np.random.Generator,
) -> tuple[Sequence[tuple[int, int]], float]:
    """(prompt and answer of each request, seconds to serve them all).

    Prompts have `least` tokens and a few more at least. Of more requests than fill the batch there
    are as many as `most_s` seconds are expected to suffice for.
    """
    longest = max(int(LONGEST_PROMPT * length) - least, SHORTEST + 1)
    answer = max(min(int(LONGEST_ANSWER * length), MOST_ANSWER), 2)
    if rng.random() < EVEN_LENGTHS:
        own = rng.uniform(SHORTEST, longest, size)
    else:
        own = np.exp(rng.uniform(np.log(SHORTEST), np.log(longest), size))
    prompts = least + own.astype(int)
    answers = rng.integers(min(4, answer - 1), answer + 1, size)
    rows = max(min(size, num_rows) * 2 // 3, 1)
    context = rows * int(prompts.mean() + answers.mean() / 2)
    decode = model.mean_s(StepShape(rows, context, [], rows)) / rows
    chunk = int(min(num_tokens, max(prompts.mean(), SHORTEST)))
    prefill = model.mean_s(StepShape(0, 0, [(chunk, 0)], 1)) / chunk
    took = np.cumsum(prompts * prefill + answers * decode)
    enough = min(int(LEAST_OVERFULL * num_rows) + 1, size)
    kept = max(int(np.searchsorted(took, most_s, side="right")), enough)
    lengths = zip(prompts[:kept].tolist(), answers[:kept].tolist(), strict=True)
    return list(lengths), float(took[kept - 1])
