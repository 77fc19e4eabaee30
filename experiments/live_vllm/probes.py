"""The designed runs that a server is calibrated on, one after the other.

Knows the limits of the server, from which the sizes follow. None of these requests is part of a
workload that is validated. They come in rounds, before, between and after the loads, so that what
the machine does meanwhile falls on both alike. A round begins with a warm-up that does not count.

- single: one request at a time, prompts of many lengths: whole prompts and chunks, decodes alone,
  and what a request costs before and after the engine.
- batch: equal requests sent at once, few to as many as fit, on short and on long contexts.
- burst: requests of random lengths sent at once, up to three times as many as fit: mixed steps.
- trickle: requests of random lengths sent one by one: steps of small batches after idle moments.

The requests of some probes begin with the same text: keys that rows share cost less than others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workbench.config import SchedulerConfig

WARM_UP = "warm"
SINGLE_OUTPUT, BATCH_OUTPUT = 10, 24
OUTPUTS = (6, 60)
SHORTEST = 8
TRICKLE, GAP = 12, 1.0
KINDS = 4
SHARED = 0.75  # of a batch's prompts, where they share


@dataclass(frozen=True, slots=True)
class Shape:
    """A request of a probe: tokens of prompt and answer, and when it is sent.

    `send_at` is in units of what a request takes alone, so that fast and slow servers get the same.
    """

    prompt: int
    output: int
    send_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Requests that are sent together.

    Attributes:
        source: The name under which its steps are kept, KIND/NUMBER.
        shapes: Its requests.
        shared: Tokens that all prompts begin with; fewer than any prompt has.
    """

    source: str
    shapes: tuple[Shape, ...]
    shared: int = 0

    @property
    def kind(self) -> str:
        """What the source begins with."""
        return self.source.partition("/")[0]


def probes(limits: SchedulerConfig, number: int, seed: int, block_size: int = 16) -> list[Probe]:
    """Those of a round, in the order in which they are to run; kinds repeat after KINDS rounds."""
    rng = np.random.default_rng([seed, 0xCA1, number])
    longest = _longest(limits)
    warm_up = (Shape(longest, BATCH_OUTPUT),) * min(4, limits.max_num_seqs)
    singles = _singles(longest, number)
    bursts = [
        _burst(
            size,
            _drawn_shared(rng, longest, block_size) if (number + place) % 2 else 0,
            longest,
            f"burst/{number}",
            rng,
        )
        for place, size in enumerate(_burst_sizes(limits, number))
    ]
    batch = _batch(limits, longest, number)
    alike = int(SHARED * batch[0].prompt) // block_size * block_size
    trickle = _drawn_shared(rng, longest, block_size) if number % 2 else 0
    return [
        Probe(f"{WARM_UP}/{number}", warm_up),
        *(Probe(f"single/{number}", (shape,)) for shape in singles),
        Probe(f"batch/{number}", batch),
        *([Probe(f"batch/{number}", batch, alike)] if alike else ()),
        *bursts,
        Probe(f"trickle/{number}", tuple(_trickle(rng, longest, trickle)), trickle),
    ]


def _longest(limits: SchedulerConfig) -> int:
    """Tokens of the longest prompt: two and a half steps' budget, where the model allows it."""
    most = limits.max_model_len or limits.max_num_batched_tokens
    return max(SHORTEST, min(5 * limits.max_num_batched_tokens // 2, most - 2 * OUTPUTS[1]))


def _singles(longest: int, number: int) -> Iterator[Shape]:
    """Lengths between a few tokens and the longest, others in each round."""
    steps = np.linspace(0.0, 1.0, 6) + number % KINDS / (6 * KINDS)
    lengths = SHORTEST * (longest / SHORTEST) ** np.minimum(steps, 1.0)
    for length in lengths.round().astype(int).tolist():
        yield Shape(length, SINGLE_OUTPUT)


def _batch(limits: SchedulerConfig, longest: int, number: int) -> tuple[Shape, ...]:
    """As many as fit on short contexts or on long ones, a half, a quarter in between."""
    share, length = ((1, 2 * SHORTEST), (2, longest), (4, longest // 3), (1, longest))[
        number % KINDS
    ]
    return (Shape(length, BATCH_OUTPUT),) * max(1, limits.max_num_seqs // share)


def _burst_sizes(limits: SchedulerConfig, number: int) -> tuple[int, ...]:
    most = limits.max_num_seqs
    sizes = ((3 * most,), (most // 2, most), (most // 4, 2 * most), (most // 8, most))[
        number % KINDS
    ]
    return tuple(max(1, size) for size in sizes)


def _burst(size: int, shared: int, longest: int, source: str, rng: np.random.Generator) -> Probe:
    return Probe(source, tuple(_random(rng, size, longest, shared)), shared)


def _drawn_shared(rng: np.random.Generator, longest: int, block_size: int) -> int:
    """Tokens of a common beginning, whole blocks, up to half of the longest prompt."""
    most = longest // 2 // block_size
    if longest < 4 * SHORTEST or not most:
        return 0
    return int(rng.integers(1, most, endpoint=True)) * block_size


def _random(rng: np.random.Generator, size: int, longest: int, shared: int = 0) -> Iterator[Shape]:
    """Requests with prompts of so many shared tokens and a random number of others."""
    own = np.exp(rng.uniform(np.log(2 * SHORTEST), np.log(longest - shared), size)).astype(int)
    prompts = shared + own
    outputs = rng.integers(*OUTPUTS, size, endpoint=True)
    for prompt, output in zip(prompts.tolist(), outputs.tolist(), strict=True):
        yield Shape(prompt, output)


def _trickle(rng: np.random.Generator, longest: int, shared: int) -> Iterator[Shape]:
    gaps = rng.exponential(GAP, TRICKLE).cumsum()
    shapes = _random(rng, len(gaps), longest, shared)
    for shape, at in zip(shapes, gaps.tolist(), strict=True):
        yield Shape(shape.prompt, shape.output, at)
