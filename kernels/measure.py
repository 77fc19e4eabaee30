"""Seconds that an operation keeps a device busy, and what the device can do at best.

Knows how to time a call without the host in the way: on a GPU many copies of the inputs, together
larger than the last-level cache, go through one captured graph, whose replays are timed by events.
On a CPU it times plain calls, which is good for a dry run and for nothing else.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from kernels.op import Inputs
from kernels.testing import clone

ROTATED_BYTES = 256 * 1024**2
"""The rotated inputs of one graph hold at least this much: several times the L2 of an H100."""
MAX_ROTATIONS = 64
MIN_CALLS = 8


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds a call.

    Attributes:
        us: Median over the repeats.
        us_min, us_max: Over the repeats.
        is_graph: Whether a captured graph was replayed; without, launches may be included.
    """

    us: float
    us_min: float
    us_max: float
    is_graph: bool


def time_op(run: Callable[..., Any], inputs: Inputs, repeats: int = 20) -> Timing:
    """Time `run(**inputs)` on the device where the inputs lie.

    Args:
        run: The operation or a peer; must not wait for the device if a graph is to be captured.
        inputs: Keyword arguments. They are copied; what `run` writes to is the copies.
        repeats: Timed replays, each of several calls.
    """
    device = _device_of(inputs)
    if device.type != "cuda":
        return _time_on_cpu(run, inputs)
    copies = _rotations(inputs)
    calls = [lambda c=copy: run(**c) for copy in copies]
    while len(calls) < MIN_CALLS:
        calls += calls
    for call in calls[:2]:
        call()
    torch.cuda.synchronize(device)
    replay, is_graph = _captured(calls, device)
    samples = [_replay_us(replay, len(calls), device) for _ in range(repeats)]
    return Timing(median(samples), min(samples), max(samples), is_graph)


def _device_of(inputs: Inputs) -> torch.device:
    for value in inputs.values():
        if isinstance(value, torch.Tensor):
            return value.device
    return torch.device("cpu")


def _bytes_of(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (tuple, list)):
        return sum(map(_bytes_of, value))
    return 0


def _rotations(inputs: Inputs) -> list[Inputs]:
    size = max(sum(map(_bytes_of, inputs.values())), 1)
    num_copies = min(max(ROTATED_BYTES // size + 1, 1), MAX_ROTATIONS)
    return [inputs, *(clone(inputs) for _ in range(num_copies - 1))]


def _captured(
    calls: Sequence[Callable[[], Any]], device: torch.device
) -> tuple[Callable[[], Any], bool]:
    """One captured graph of all calls; plain calls where capturing fails."""

    def run_all() -> None:
        for call in calls:
            call()

    current = torch.cuda.current_stream(device)
    if not _is_asynchronous(run_all, current):
        return run_all, False
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run_all()
    except (RuntimeError, NotImplementedError):
        # a capture that breaks off leaves its own stream behind as the current one
        torch.cuda.set_stream(current)
        torch.cuda.synchronize(device)
        return run_all, False
    return graph.replay, True


def _is_asynchronous(run_all: Callable[[], None], current: torch.cuda.Stream) -> bool:
    """Run once beside the current stream; whether the host never waited for the device.

    A wait inside a capture does not just fail: it leaves the allocator in the middle of a capture.
    """
    side = torch.cuda.Stream(current.device)
    side.wait_stream(current)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(side):
            run_all()
    except RuntimeError:
        return False
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize(current.device)
    return True


def _replay_us(replay: Callable[[], Any], num_calls: int, device: torch.device) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    replay()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end)) * 1e3 / num_calls


def _time_on_cpu(run: Callable[..., Any], inputs: Inputs) -> Timing:
    samples = []
    for copy in (inputs, clone(inputs)):
        start = time.perf_counter()
        run(**copy)
        samples.append((time.perf_counter() - start) * 1e6)
    return Timing(median(samples), min(samples), max(samples), is_graph=False)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a device reaches on the two simplest jobs.

    Attributes:
        copy_bytes_per_s: Bytes read plus bytes written by a large copy, a second.
        matmul_flops_per_s: Of a large bfloat16 matrix product.
    """

    copy_bytes_per_s: float
    matmul_flops_per_s: float

    def floor_us(self, num_bytes: int, num_flops: int) -> float:
        """The roofline: no call that moves and computes this much is faster, microseconds."""
        return 1e6 * max(num_bytes / self.copy_bytes_per_s, num_flops / self.matmul_flops_per_s)


def measure_ceilings(device: torch.device, is_dry_run: bool = False) -> Ceilings:
    """Measure both; toy sizes in a dry run."""
    num_elements = 1 << (16 if is_dry_run else 29)
    size = 64 if is_dry_run else 8192
    source = torch.zeros(num_elements, dtype=torch.bfloat16, device=device)
    a = torch.randn(size, size, device=device).bfloat16()
    copy = time_op(_copy, {"target": torch.empty_like(source), "source": source})
    matmul = time_op(torch.matmul, {"input": a, "other": a.clone()})
    return Ceilings(4e6 * num_elements / copy.us, 2e6 * size**3 / matmul.us)


def _copy(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    return target.copy_(source)
