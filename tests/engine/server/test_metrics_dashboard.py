"""The Grafana dashboard asks for nothing that the server does not tell."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.server.metrics import ServerMetrics
from tests.engine.server.exposition import Exposition
from tests.engine.server.listening import INFO, make_state, step_stats
from workbench.sampling_params import SamplingParams

DASHBOARD = Path(__file__).resolve().parents[3] / "docs/serving/grafana/workbench.json"
SELECTOR = re.compile(r"((?:vllm:|http_|process_|python_)\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"by \(([^)]*)\)")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """Label names by sample name."""
    metrics = ServerMetrics(INFO, "tiny", make_state())
    metrics.http.observe("/v1/completions", "POST", 200, 0.1, 10, 20)
    metrics.engine.on_tokens("a", 1, 1.0, True)
    metrics.engine.on_arrival("a", 3, SamplingParams())
    metrics.engine.on_tokens("a", 2, 1.0, True)
    metrics.engine.on_step(step_stats(num_accepted_tokens=1, accepted_at=[1]), None)
    told = Exposition(metrics.render().decode()).labels()
    return {name: set().union(*each) | {"instance"} for name, each in told.items()}


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_every_metric_and_label_of_the_queries_exists(
    dashboard: dict[str, Any], labels: dict[str, set[str]]
) -> None:
    for query in queries(dashboard):
        asked = SELECTOR.findall(query)
        assert asked, query
        for name, selector in asked:
            assert name in labels, query
            assert set(re.findall(r"(\w+)=", selector)) <= labels[name], query
        known = set.union(*(labels[name] for name, _ in asked))
        for group in GROUPED.findall(query):
            assert {each.strip() for each in group.split(",")} <= known, query


def test_every_variable_is_declared(dashboard: dict[str, Any]) -> None:
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"])))
    assert used - {"__rate_interval"} <= declared
    assert declared == {"datasource", "model_name"}


def test_panels_have_ids_and_places_of_their_own(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 38
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
