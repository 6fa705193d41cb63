"""Metrics of the application and of other libraries, from several processes."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hasten.jobs import Queue
from hasten.prometheus import Metrics
from hasten.prometheus._foreign_families import (
    collect_foreign_families,
    decode_families_of_process,
    encode_families,
    merge_families_with_same_name,
)


def test_the_processes_are_told_apart_by_a_label() -> None:
    registry = CollectorRegistry()
    Counter("letters", "Letters sent.", ["kind"], registry=registry).labels("fast").inc(3)
    Histogram("sizes", "Sizes.", buckets=[1, 2], registry=registry).observe(1.5)
    Gauge("level", "Level.", registry=registry).set(float("nan"))
    encoded = encode_families(collect_foreign_families(registry))
    merged = merge_families_with_same_name(
        [*decode_families_of_process(encoded, 1), *decode_families_of_process(encoded, 2)]
    )
    assert [(each.name, each.type) for each in merged] == [
        ("letters", "counter"),
        ("sizes", "histogram"),
        ("level", "gauge"),
    ]
    values = {
        each.labels["process"]: each.value
        for each in merged[0].samples
        if each.name == "letters_total"
    }
    assert values == {"1": 3, "2": 3}
    assert {each.labels.get("le") for each in merged[1].samples if "bucket" in each.name} == {
        "1.0",
        "2.0",
        "+Inf",
    }


def test_metrics_of_hasten_in_the_registry_are_left_out(memory: Queue, monkeypatch: Any) -> None:
    """The application may have made them for its web process. They would read the store again."""
    registry = CollectorRegistry()
    Metrics(memory, registry=registry)
    Counter("letters", "Letters sent.", registry=registry)
    assert [family.name for family in collect_foreign_families(registry)] == ["letters"]
    assert len(list(registry.collect())) > 1
