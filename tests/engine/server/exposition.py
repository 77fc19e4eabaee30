"""Reads the text that Prometheus reads."""

from dataclasses import dataclass
from functools import cached_property

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@dataclass(frozen=True)
class Exposition:
    """Metrics as text."""

    text: str

    @cached_property
    def samples(self) -> list[Sample]:
        families = text_string_to_metric_families(self.text)
        return [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Of the one sample with that name and, among others, these labels."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert len(found) == 1, f"{len(found)} samples {name} {labels}"
        return found[0]

    def types(self) -> dict[str, str]:
        """Kind by name, as the TYPE lines have them."""
        lines = (line.split() for line in self.text.splitlines())
        return {words[2]: words[3] for words in lines if words[:2] == ["#", "TYPE"]}

    def labels(self) -> dict[str, set[frozenset[str]]]:
        """Sets of label names by the samples' names."""
        found: dict[str, set[frozenset[str]]] = {}
        for sample in self.samples:
            found.setdefault(sample.name, set()).add(frozenset(sample.labels))
        return found

    def buckets(self, histogram: str) -> list[str]:
        """The distinct upper bounds of a histogram, in order."""
        bounds = [s.labels["le"] for s in self.samples if s.name == f"{histogram}_bucket"]
        return list(dict.fromkeys(bounds))
