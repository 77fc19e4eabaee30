"""Reducing long columns to the few hundred points that a chart can show.

Knows arrays only. Averages over time are exact integrals, tails are kept whole, and nothing is
drawn at random, so that the same run gives the same picture.
"""

import numpy as np
import pandas as pd

BINS = 240


def thin(count: int, limit: int) -> np.ndarray:
    """At most ``limit`` indices out of ``count``, evenly spaced, first and last included."""
    if count <= limit:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, limit).round().astype(np.int64))


def cdf_points(values: np.ndarray, limit: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """(x, share of values <= x) of the values that are not NaN, dense in the tail."""
    ordered = np.sort(values[~np.isnan(values)])
    n = len(ordered)
    if n == 0:
        return np.empty(0), np.empty(0)
    tail = n - np.geomspace(1, n, limit // 2).astype(np.int64)
    index = np.union1d(thin(n, limit), tail)
    return ordered[index], (index + 1) / n


def time_edges(end: float, start: float = 0.0, bins: int = BINS) -> np.ndarray:
    """Edges of ``bins`` equal bins, shape (bins + 1,); at least a microsecond wide in all."""
    return np.linspace(start, max(end, start + 1e-6), bins + 1)


def held_mean(
    start: np.ndarray, duration: np.ndarray, values: np.ndarray, edges: np.ndarray
) -> np.ndarray:
    """Exact mean over time in each bin of a value that holds during each step, else is 0.

    Shape (bins,). Steps of one replica, in order and not overlapping. A pause shorter than the
    step before it counts as part of this step.
    """
    if len(start) == 0:
        return np.zeros(len(edges) - 1)
    order = np.argsort(start, kind="stable")
    start, duration, values = start[order], duration[order], values[order]
    following = np.append(start[1:], start[-1] + duration[-1])
    end = np.where(following - start < 2 * duration, following, start + duration)
    times = np.column_stack([start, end]).ravel()
    areas = np.column_stack([np.zeros(len(start)), values * (end - start)]).ravel()
    return np.diff(np.interp(edges, times, np.cumsum(areas))) / np.diff(edges)


def rate(times: np.ndarray, edges: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Events (or weights) per second in each bin, shape (bins,)."""
    counts, _ = np.histogram(times, bins=edges, weights=weights)
    return counts / np.diff(edges)


def binned_percentiles(
    times: np.ndarray, values: np.ndarray, edges: np.ndarray, percentiles: list[float]
) -> np.ndarray:
    """Percentiles of the values in each time bin, shape (len(percentiles), bins); NaN if empty.

    A bin holds its start; the last one holds its end too, where the last request of a run is.
    """
    out = np.full((len(percentiles), len(edges) - 1), np.nan)
    index = np.searchsorted(edges, times, side="right") - 1
    index[times == edges[-1]] = len(edges) - 2
    order = np.argsort(index, kind="stable")
    bounds = np.searchsorted(index[order], np.arange(len(edges)))
    for b in range(len(edges) - 1):
        inside = order[bounds[b] : bounds[b + 1]]
        if len(inside):
            out[:, b] = np.percentile(values[inside], percentiles)
    return out


def token_times(requests: pd.DataFrame) -> np.ndarray:
    """Times of all output tokens in seconds, in no particular order."""
    given = requests[requests["first_token_s"].notna()]
    times = [given["first_token_s"].to_numpy(dtype=np.float64)]
    firsts = times[0]
    times += [first + np.cumsum(gaps) for first, gaps in zip(firsts, given["itl_s"], strict=True)]
    return np.concatenate(times)


def all_gaps(requests: pd.DataFrame) -> np.ndarray:
    """Every gap between tokens of all requests, in one array of seconds."""
    gaps = [g for g in requests["itl_s"] if len(g)]
    return np.concatenate(gaps) if gaps else np.empty(0)


def run_span(requests: pd.DataFrame, steps: pd.DataFrame) -> float:
    """Last moment of the run that any table knows, in seconds; 0 for an empty run."""
    ends = [requests["finish_s"], requests["arrival_s"], steps["start_s"] + steps["duration_s"]]
    known = [float(e.max()) for e in ends if e.notna().any()]
    return max(known, default=0.0)


def last_step_end(steps: pd.DataFrame) -> float:
    """When the last step ended, in seconds; 0 without steps."""
    return float((steps["start_s"] + steps["duration_s"]).max()) if len(steps) else 0.0
