"""The dashboard for Grafana and the examples for Prometheus, Kubernetes and KEDA fit the code."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from hasten.compression import CompressionStats
from hasten.jobs import Queue
from hasten.jobs._health import predict_wait
from hasten.jobs._health_app import ENDPOINTS
from hasten.loadshedding import LoadSheddingStats
from hasten.prometheus import Metrics
from hasten.ratelimit import RateLimitStats
from tests.docs.markdown import ROOT

GUIDE: Final = (ROOT / "docs/howto/operate.md").read_text(encoding="utf-8")
DASHBOARD: Final = json.loads((ROOT / "docs/grafana-dashboard.json").read_text(encoding="utf-8"))

NAME: Final = re.compile(r"\b(?:hasten|bullmq)_\w+")


def exported() -> dict[str, set[str]]:
    """The names of all samples, and their labels."""
    metrics = Metrics(
        Queue("mail", "memory://"),
        compression=CompressionStats(),
        rate_limits=RateLimitStats(),
        load_shedding=LoadSheddingStats(),
        registry=None,
    )
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {
        family.name + suffix: set(getattr(family, "_labelnames", ()))
        for family in metrics.describe()
        for suffix in suffixes.get(family.type, [""])
    }


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_shows_metrics_that_exist() -> None:
    names = {name for text in expressions() for name in NAME.findall(text)}
    assert names - exported().keys() == set()
    variable: dict[str, Any] = DASHBOARD["templating"]["list"][1]
    assert NAME.findall(variable["query"]) == ["hasten_jobs"]


def test_the_dashboard_groups_by_labels_that_exist() -> None:
    for text in expressions():
        labels: set[str] = set().union(*(exported()[name] for name in NAME.findall(text)))
        for group in re.findall(r"by \(([^)]+)\)", text):
            assert set(group.split(", ")) - labels <= {"instance", "le"}


def test_the_panels_have_different_ids_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))


def test_the_guide_names_each_metric_and_no_other() -> None:
    section = GUIDE.partition("## Metrics for Prometheus")[2].partition("## Health checks")[0]
    known = exported().keys()
    histograms = {name.removesuffix("_bucket") for name in known if name.endswith("_bucket")}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    assert set(NAME.findall(section)) - parts == (known - parts) | histograms


def test_the_probes_and_the_scaler_use_pages_that_exist() -> None:
    used = re.findall(r"path: /(\w+), port|9100/(\w+)\?queue=mail\"", GUIDE)
    assert {probe or scaler for probe, scaler in used} == set(ENDPOINTS)
    (location,) = re.findall(r'valueLocation: "(\w+)"', GUIDE)
    scale = predict_wait([], "mail", backlog=1, running=1, slots=1, is_paused=False)
    assert isinstance(scale.body[location], float)
    assert "metricType: Value\n" in GUIDE  # see tests/unit/test_health.py for its arithmetic


def test_the_example_of_the_guide_is_computed_correctly() -> None:
    (example,) = re.findall(r'^# (\{"queue".*\})$', GUIDE, re.MULTILINE)
    found = json.loads(example)
    assert (
        found.keys()
        == predict_wait([], "mail", backlog=0, running=0, slots=1, is_paused=False).body.keys()
    )
    assert found["wait_seconds"] == found["backlog"] * 2.0 / found["slots"]
