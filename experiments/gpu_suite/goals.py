"""The goals on an H100, each as a number that follows from the suite's results.

Knows which operation, case and column answers which goal. A number that some result is missing
for is None. Where a goal covers several cases, the worst of them counts.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
NOT_MEASURED, MISSED = "not measured", "missed"
LEVELS = ("must", "good", "stretch")
DECODE, PREFILL, MIXED = (
    f"attention.{name}" for name in ("paged_decode", "paged_prefill", "paged_attention")
)
WRITE = "kv_cache.rotary_cache_write"
GUMBEL, TOP_K_TOP_P = "sampling.gumbel_sample", "sampling.top_k_top_p_sample"
LARGE_DECODES = tuple(
    f"batch-{batch}-context-{context}-bfloat16"
    for batch, context in ((64, 2048), (64, 8192), (128, 4096), (256, 2048), (256, 8192))
)
# batch x context; larger ones do not fit beside the weights in 80 GB
STEP_CASES = ("1x1024", "32x1024", "128x1024", "256x1024", "1x4096", "32x4096")
LONG_PREFILLS = ("causal-8192-bfloat16", "causal-16384-bfloat16")


class Measurements:
    """Times of operations by name, case and who ran them, and the engine's step times.

    Args:
        kernels: Rows of the kernel benchmarks.
        steps: Rows of the step times.
    """

    def __init__(self, kernels: Iterable[Row], steps: Iterable[Row]) -> None:
        self._times = {
            (row["op"], row["case"], row["who"]): row
            for row in kernels
            if row["kind"] == "time" and "us" in row
        }
        self.steps = list(steps)

    def get(self, op: str, case: str, column: str, who: str = "ours") -> float | None:
        """One number, None where it was not measured."""
        row = self._times.get((op, case, who))
        return None if row is None else float(row[column])

    def over_cases(self, op: str, cases: Iterable[str], column: str) -> list[float | None]:
        """A column of several cases."""
        return [self.get(op, case, column) for case in cases]

    def ratio(self, op: str, case: str, other: str, who: str = "ours") -> float | None:
        """How many times longer `case` takes than another case, or than the same one of a peer."""
        ours, theirs = self.get(op, case, "us"), self.get(op, other, "us", who)
        return None if ours is None or theirs is None else ours / theirs

    def of_steps(self, column: str) -> list[float | None]:
        """A column of the step times, one a case of the goals; None where it is missing.

        A batch whose requests had to share KV blocks has read less than it should: it is missing.
        """
        known = {
            row["case"]: row[column]
            for row in self.steps
            if column in row and not row.get("shares_blocks")
        }
        return [known.get(case) for case in STEP_CASES]


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal.

    Attributes:
        item: What.
        measure: The number, from the results; None: not measured.
        levels: must, good, stretch; None: no such level.
        unit: Behind the number; "%" multiplies it by 100.
        is_less_better: A time or a price.
    """

    item: str
    measure: Callable[[Measurements], float | None]
    levels: tuple[float | None, float | None, float | None]
    unit: str
    is_less_better: bool = False

    def verdict(self, value: float | None) -> str:
        """The highest level that is met, with all below it; or what is to be said instead."""
        if value is None:
            return NOT_MEASURED
        met = MISSED
        for name, level in zip(LEVELS, self.levels, strict=True):
            if level is None:
                continue
            if value > level if self.is_less_better else value < level:
                return met
            met = f"{name} met"
        return met

    def told(self, value: float | None) -> str:
        """A value in the goal's unit."""
        if value is None:
            return "-"
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        return f"{value:.3g} {self.unit}".rstrip()


def least(values: Iterable[float | None]) -> float | None:
    """The smallest; None where one is missing."""
    known = list(values)
    return None if None in known else min(value for value in known if value is not None)


def most(values: Iterable[float | None]) -> float | None:
    """The largest; None where one is missing."""
    known = list(values)
    return None if None in known else max(value for value in known if value is not None)


def _page_price(results: Measurements) -> float | None:
    cases = ((DECODE, "batch-64-context-8192"), (PREFILL, "causal-16384"))
    worst = most(
        results.ratio(op, f"{case}-bfloat16", f"{case}-contiguous-bfloat16") for op, case in cases
    )
    return None if worst is None else worst - 1.0


def _mixed(results: Measurements) -> float | None:
    names = ("chunk-2048-and-64-decodes", "chunk-2048", "64-decodes")
    both, chunk, decodes = results.over_cases(MIXED, (f"{n}-bfloat16" for n in names), "us")
    return None if both is None or chunk is None or decodes is None else both / (chunk + decodes)


def _speed_against(peer: str) -> Callable[[Measurements], float | None]:
    def speed(results: Measurements) -> float | None:
        slowest = most(results.ratio(PREFILL, case, case, peer) for case in LONG_PREFILLS)
        return None if slowest is None else 1.0 / slowest

    return speed


GOALS = (
    Goal(
        "paged decode, batch 64-256, context 2-8k: share of copy bandwidth",
        lambda r: least(r.over_cases(DECODE, LARGE_DECODES, "share_of_copy")),
        (0.75, 0.85, 0.92),
        "%",
    ),
    Goal(
        "paged decode, batch 64, context 1k: share of copy bandwidth",
        lambda r: r.get(DECODE, "batch-64-context-1024-bfloat16", "share_of_copy"),
        (0.65, 0.75, 0.85),
        "%",
    ),
    Goal(
        "paged causal prefill, 8-16k",
        lambda r: least(r.over_cases(PREFILL, LONG_PREFILLS, "tflops")),
        (330.0, 420.0, 500.0),
        "TFLOP/s",
    ),
    Goal(
        "the same against torch's flash attention",
        _speed_against("sdpa_flash"),
        (1.0, None, None),
        "x",
    ),
    Goal(
        "the same against torch's cuDNN attention",
        _speed_against("sdpa_cudnn"),
        (None, 0.70, 0.80),
        "x",
    ),
    Goal("price of page 16 against contiguous", _page_price, (0.15, 0.10, 0.05), "%", True),
    Goal(
        "mixed: a 2k chunk and 64 decodes, over the sum of the parts",
        _mixed,
        (1.10, 1.0, 0.85),
        "x",
        True,
    ),
    Goal(
        "KV-cache write, 16k tokens and more: share of copy bandwidth",
        lambda r: least(
            r.over_cases(WRITE, ("16k-tokens-bfloat16", "32k-tokens-bfloat16"), "share_of_copy")
        ),
        (0.70, 0.80, 0.90),
        "%",
    ),
    Goal(
        "KV-cache write, up to 256 tokens",
        lambda r: most(r.over_cases(WRITE, ("64-tokens-bfloat16", "256-tokens-bfloat16"), "us")),
        (5.0, 3.5, 2.5),
        "us",
        True,
    ),
    Goal(
        "Gumbel sampling, 64 x 128k",
        lambda r: r.get(GUMBEL, "64x128k-float32", "us"),
        (30.0, 20.0, 15.0),
        "us",
        True,
    ),
    Goal(
        "top-k and top-p sampling, 64 x 128k",
        lambda r: r.get(TOP_K_TOP_P, "64x128k-k50-p0.9-float32", "us"),
        (120.0, 60.0, 40.0),
        "us",
        True,
    ),
    Goal(
        "decode by CUDA graph: replay over the sum of its kernels",
        lambda r: most(r.of_steps("replay_over_kernels")),
        (1.05, 1.03, None),
        "x",
        True,
    ),
    Goal(
        "decode by CUDA graph: device idle between steps",
        lambda r: most(r.of_steps("host_gap_us")),
        (150.0, 50.0, 5.0),
        "us",
        True,
    ),
    Goal(
        "full decode step over its byte floor",
        lambda r: most(r.of_steps("over_floor")),
        (1.35, 1.20, 1.10),
        "x",
        True,
    ),
)
