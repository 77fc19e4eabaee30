"""Counters, gauges and histograms that are cheap to feed, and how they become Prometheus samples.

A fed value costs an addition; everything else is done when somebody asks for the metrics. Fed and
read on one thread, so there are no locks. Knows no metric's name and nothing of requests.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client.core import Metric
from prometheus_client.utils import floatToGoString

Labels = Mapping[str, str]


class Count:
    """A number that grows. `value` may be added to directly."""

    __slots__ = ("created", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.created = time.time()

    def add_to(self, metric: Metric, labels: Labels) -> None:
        """Put its samples into the metric."""
        metric.add_sample(f"{metric.name}_total", dict(labels), self.value)
        metric.add_sample(f"{metric.name}_created", dict(labels), self.created)


class Level:
    """A number that goes up and down: `value`, or what `read` says when it is asked for."""

    __slots__ = ("read", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.read: Callable[[], float] | None = None

    def add_to(self, metric: Metric, labels: Labels) -> None:
        """Put its sample into the metric."""
        value = self.value if self.read is None else self.read()
        metric.add_sample(metric.name, dict(labels), value)


class Sizes:
    """How many values there were, and their sum."""

    __slots__ = ("count", "created", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.created = time.time()

    def observe(self, value: float) -> None:
        """Take in one value."""
        self.count += 1
        self.sum += value

    def add_to(self, metric: Metric, labels: Labels) -> None:
        """Put its samples into the metric."""
        metric.add_sample(f"{metric.name}_count", dict(labels), self.count)
        metric.add_sample(f"{metric.name}_sum", dict(labels), self.sum)
        metric.add_sample(f"{metric.name}_created", dict(labels), self.created)


class Distribution:
    """How many values fell into each bucket, and their sum.

    Args:
        bounds: Upper bounds of the buckets, ascending, without infinity. A value that equals a
            bound is inside.
    """

    __slots__ = ("bounds", "counts", "created", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.created = time.time()

    def observe(self, value: float, times: int = 1) -> None:
        """Take in one value, or the same value several times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def add_to(self, metric: Metric, labels: Labels) -> None:
        """Put its samples into the metric."""
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            metric.add_sample(
                f"{metric.name}_bucket", {**labels, "le": floatToGoString(bound)}, seen
            )
        metric.add_sample(f"{metric.name}_count", dict(labels), seen)
        metric.add_sample(f"{metric.name}_sum", dict(labels), self.sum)
        metric.add_sample(f"{metric.name}_created", dict(labels), self.created)


class Series(Protocol):
    """What a family has many of."""

    def add_to(self, metric: Metric, labels: Labels) -> None:
        """Put its samples into the metric."""
        ...


Child = TypeVar("Child", bound=Series)


class Family(Generic[Child]):
    """All series of one name: one a combination of label values.

    Args:
        name: Without the endings that the samples get (_total, _bucket …).
        kind: "counter", "gauge", "summary" or "histogram".
        documentation: The HELP line.
        make: A new series.
        labels: Names of the labels that differ among the series.
        constant: Labels that all of them have.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        documentation: str,
        make: Callable[[], Child],
        labels: Sequence[str] = (),
        constant: Labels | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.documentation = documentation
        self._make = make
        self._labels = tuple(labels)
        self._constant = dict(constant or {})
        self._children: dict[tuple[str, ...], Child] = {}

    def series(self, *values: str) -> Child:
        """The series with these label values, made at the first call."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self.name} has labels {self._labels}, got values {values}")
            child = self._children[values] = self._make()
        return child

    def collect(self) -> Metric:
        """All series as Prometheus samples."""
        metric = Metric(self.name, self.documentation, self.kind)
        for values, child in self._children.items():
            labels = self._constant | dict(zip(self._labels, values, strict=True))
            child.add_to(metric, labels)
        return metric


class FamilySet:
    """Families that share a constant set of labels, in the order in which they were declared."""

    def __init__(self, constant: Labels | None = None) -> None:
        self._constant = dict(constant or {})
        self._families: list[Family[Any]] = []

    def counter(self, name: str, documentation: str, *labels: str) -> Family[Count]:
        """Declare a counter; `name` without _total."""
        family = Family(name, "counter", documentation, Count, labels, self._constant)
        self._families.append(family)
        return family

    def gauge(self, name: str, documentation: str, *labels: str) -> Family[Level]:
        """Declare a gauge."""
        family = Family(name, "gauge", documentation, Level, labels, self._constant)
        self._families.append(family)
        return family

    def summary(self, name: str, documentation: str, *labels: str) -> Family[Sizes]:
        """Declare a summary without quantiles."""
        family = Family(name, "summary", documentation, Sizes, labels, self._constant)
        self._families.append(family)
        return family

    def histogram(
        self, name: str, documentation: str, bounds: Iterable[float], *labels: str
    ) -> Family[Distribution]:
        """Declare a histogram."""
        fixed = tuple(bounds)
        family = Family(
            name, "histogram", documentation, lambda: Distribution(fixed), labels, self._constant
        )
        self._families.append(family)
        return family

    def collect(self) -> Iterator[Metric]:
        """All families as Prometheus samples."""
        return (family.collect() for family in self._families)
