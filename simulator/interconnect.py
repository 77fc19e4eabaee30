"""Times of collective operations between GPUs.

Knows messages, links and measured tables. It does not know which layer sends what.

The analytic model takes the faster of two algorithms, as serving engines do: one shot (every GPU
reads every peer's whole message; few hops) for small messages, and reduce-scatter followed by
all-gather (each GPU moves 2 (n-1)/n of the message) for large ones.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Protocol

from simulator.cost_models.base import refuse_far
from simulator.hardware import HardwareConfig
from workbench.errors import ConfigError, CostModelError


class AllReduce(Protocol):
    """Seconds to sum a message over GPUs."""

    def __call__(self, num_bytes: float, num_ranks: int) -> float: ...


class Interconnect:
    """Analytic collectives over the links of one kind of GPU.

    Args:
        hardware: Bandwidth and latency of a hop, inside a node and between nodes.
        efficiency: Share of the link's peak bandwidth that a collective reaches, in (0, 1].
        base_latency_s: Launch and synchronisation of one collective.
    """

    def __init__(
        self, hardware: HardwareConfig, efficiency: float = 0.65, base_latency_s: float = 4e-6
    ) -> None:
        self._hardware = hardware
        self._efficiency = efficiency
        self._base = base_latency_s

    def _link(self, num_ranks: int) -> tuple[float, float]:
        """Achieved bytes/s of a GPU and seconds of a hop, in a group of `num_ranks`."""
        hardware = self._hardware
        bandwidth, latency = hardware.interconnect_bandwidth_gbps, hardware.interconnect_latency_us
        if num_ranks > hardware.gpus_per_node:
            bandwidth, latency = hardware.internode_bandwidth_gbps, hardware.internode_latency_us
        return bandwidth * 1e9 * self._efficiency, latency * 1e-6

    def all_reduce(self, num_bytes: float, num_ranks: int) -> float:
        """Seconds until every one of `num_ranks` GPUs holds the sum of `num_bytes`."""
        if num_ranks <= 1 or num_bytes <= 0:
            return 0.0
        bandwidth, hop = self._link(num_ranks)
        peers = num_ranks - 1
        one_shot = self._base + peers * (hop + num_bytes / bandwidth)
        two_shot = 2 * (self._base + peers * (hop + num_bytes / num_ranks / bandwidth))
        return min(one_shot, two_shot)

    def all_gather(self, num_bytes: float, num_ranks: int) -> float:
        """Seconds until every GPU holds the messages of `num_bytes` of all; also reduce-scatter."""
        if num_ranks <= 1 or num_bytes <= 0:
            return 0.0
        bandwidth, hop = self._link(num_ranks)
        return self._base + (num_ranks - 1) * (hop + num_bytes / bandwidth)

    def send_recv(self, num_bytes: float, crosses_nodes: bool = False) -> float:
        """Seconds to hand `num_bytes` to one other GPU."""
        if num_bytes <= 0:
            return 0.0
        bandwidth, hop = self._link(self._hardware.gpus_per_node + 1 if crosses_nodes else 2)
        return self._base + hop + num_bytes / bandwidth


class MeasuredAllReduce:
    """All-reduce times interpolated linearly in the message size between measured sizes.

    Beyond the largest message the rate of the last two points continues, up to 8 times its size.

    Args:
        times: For every group size, ascending message sizes in bytes and their seconds.
        fallback: Answers for group sizes that were not measured.
    """

    def __init__(
        self,
        times: Mapping[int, tuple[Sequence[float], Sequence[float]]],
        fallback: AllReduce | None = None,
    ) -> None:
        self._times = times
        self._fallback = fallback

    def largest(self, num_ranks: int) -> float:
        """Bytes of the largest measured message; infinite where the table is not asked."""
        return self._times[num_ranks][0][-1] if num_ranks in self._times else inf

    def knows(self, num_ranks: int) -> bool:
        """Whether groups of so many GPUs were measured."""
        return num_ranks in self._times

    def all_gather(self, num_bytes: float, num_ranks: int) -> float:
        """Seconds until every GPU holds the messages of `num_bytes` of all; also reduce-scatter.

        Half of an all-reduce of all messages, which is one of each, with a latency of its own.
        """
        if num_ranks <= 1 or num_bytes <= 0:
            return 0.0
        latency = self(1.0, num_ranks)
        whole = self(num_bytes * num_ranks, num_ranks)
        return latency + 0.5 * (whole - latency)

    def __call__(self, num_bytes: float, num_ranks: int) -> float:
        if num_ranks <= 1 or num_bytes <= 0:
            return 0.0
        if num_ranks not in self._times:
            if self._fallback is not None:
                return self._fallback(num_bytes, num_ranks)
            raise CostModelError(
                f"all-reduce over {num_ranks} GPUs was not measured (have"
                f" {sorted(self._times)}): use another tensor_parallel_size or all_reduce=null"
            )
        sizes, seconds = self._times[num_ranks]
        if num_bytes <= sizes[0]:
            return seconds[0]
        cure = "lower scheduler.max_num_batched_tokens or set cost_model.all_reduce=null"
        refuse_far("an all-reduce with a number of bytes", num_bytes, sizes[-1], cure)
        right = min(bisect_left(sizes, num_bytes), len(sizes) - 1)
        left = right - 1
        share = (num_bytes - sizes[left]) / (sizes[right] - sizes[left])
        return seconds[left] + share * (seconds[right] - seconds[left])

    @classmethod
    def load(cls, path: str | Path, fallback: AllReduce | None = None) -> "MeasuredAllReduce":
        """Read a table of all-reduce times.

        Two formats: CSV with `num_workers`, `devices_per_node`, `size` in bytes and
        `time_stats.all_reduce.median` in ms (the groups inside one node are used); Parquet with
        `num_gpus`, `message_size` in 16-bit elements, `latency` in ms and, optionally, `backend`
        (graph replay is preferred over eager launches).

        Raises:
            ConfigError: The file cannot be read, lacks a column, holds a time that is none, or has
                no group of GPUs with two sizes.
        """
        path = Path(path)
        if not path.is_file():
            raise ConfigError(f"all-reduce table {path} does not exist: give a CSV or Parquet file")
        try:
            columns = _columns(path)
        except KeyError as error:
            raise ConfigError(f"all-reduce table {path} lacks the column {error}") from None
        except (ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            message = f"all-reduce table {path} cannot be read as a table: {reason}"
            raise ConfigError(message) from None
        times = _sorted(zip(*columns, strict=True), path)
        if not times:
            raise ConfigError(
                f"all-reduce table {path} has no group of GPUs with two message sizes:"
                " give another file, or all_reduce=null"
            )
        return cls(times, fallback)


def _columns(path: Path) -> list[list[float]]:
    """GPUs, bytes and seconds of every row; what is no number becomes NaN."""
    import pandas as pd

    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        if "backend" in frame and frame["backend"].str.endswith("graph").any():
            frame = frame[frame["backend"].str.endswith("graph")]
        names, bytes_of_one = ("num_gpus", "message_size", "latency"), 2
    else:
        frame = pd.read_csv(path)
        frame = frame[frame["num_workers"] == frame["devices_per_node"]]
        names, bytes_of_one = ("num_workers", "size", "time_stats.all_reduce.median"), 1
    columns = [pd.to_numeric(frame[name], errors="coerce") for name in names]
    ranks, sizes, milliseconds = (column.tolist() for column in columns)
    return [ranks, [n * bytes_of_one for n in sizes], [ms * 1e-3 for ms in milliseconds]]


def _sorted(
    rows: Iterable[tuple[float, ...]], path: Path
) -> dict[int, tuple[list[float], list[float]]]:
    """Mean time of every (ranks, bytes), ascending, and never falling with the size."""
    groups: dict[int, dict[float, list[float]]] = {}
    for ranks, size, seconds in rows:
        if not (ranks >= 1 and 0 <= seconds < inf and 0 <= size < inf):
            raise ConfigError(
                f"all-reduce table {path} holds {seconds:g} s for {size:g} bytes over {ranks:g}"
                " GPUs: sizes and times are finite numbers of at least 0"
            )
        groups.setdefault(int(ranks), {}).setdefault(float(size), []).append(float(seconds))
    times = {}
    for ranks, by_size in groups.items():
        sizes = sorted(by_size)
        seconds_of = [sum(by_size[size]) / len(by_size[size]) for size in sizes]
        for i in range(1, len(sizes)):
            seconds_of[i] = max(seconds_of[i], seconds_of[i - 1])
        if len(sizes) > 1:
            times[ranks] = (sizes, seconds_of)
    return times
