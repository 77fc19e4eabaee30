"""Which rows of a step attend together: rows of like size, so that little is padded.

Arithmetic on lengths only. Padded work costs time in proportion to what is padded; one more bucket
costs a fixed time (a few calls of torch), so a bucket ends where its padding would cost more.
"""

from collections.abc import Iterator

import numpy as np


def by_width(widths: np.ndarray, max_pages: int, spare_pages: int) -> Iterator[np.ndarray]:
    """Split rows by their number of pages.

    Args:
        widths: [R] pages that each row reads.
        max_pages: Most pages of a bucket, padding included; a single row may have more.
        spare_pages: Most pages of padding: so many cost about as much as one more bucket.

    Yields:
        Row numbers of a bucket, in ascending order.
    """
    order = np.argsort(-widths, kind="stable")
    descending = widths[order]
    ends = np.cumsum(descending)
    start = 0
    while start < len(order):
        widest = int(descending[start])
        num_rows = np.arange(1, len(order) - start + 1)
        padding = widest * num_rows - (ends[start:] - ends[start] + widest)
        # Padding grows with every row, so the rows that fit are the first ones.
        size = int(np.searchsorted(padding, spare_pages, side="right"))
        size = max(1, min(size, max_pages // max(widest, 1)))
        yield np.sort(order[start : start + size])
        start += size


def by_query_len(
    query_lens: np.ndarray, widths: np.ndarray, max_pages: int, spare_pages: int
) -> Iterator[np.ndarray]:
    """Split rows of several query tokens: within a factor of two of each other, then by pages.

    Args:
        query_lens: [R] query tokens, at least 1.
        widths, max_pages, spare_pages: As in `by_width`.

    Yields:
        Row numbers of a bucket, in ascending order.
    """
    powers = np.ceil(np.log2(query_lens)).astype(np.int64)
    for power in np.unique(powers):
        rows = np.flatnonzero(powers == power)
        for bucket in by_width(widths[rows], max_pages, spare_pages):
            yield rows[bucket]
