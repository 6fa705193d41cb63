"""The metrics of the application and of prometheus_client itself, sent between processes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import CollectorRegistry

Family = Metric
"""A metric of prometheus_client with its samples."""

# Whether `Metrics` objects in the registry generate nothing.
leaves_out_hasten: Final = ContextVar("leaves_out_hasten", default=False)


def collect_foreign_families(registry: CollectorRegistry = REGISTRY) -> list[Metric]:
    """Collect the metrics of a registry, without those of `Metrics` objects in it."""
    with _leaving_out_hasten_metrics():
        return list(registry.collect())


@contextmanager
def _leaving_out_hasten_metrics() -> Iterator[None]:
    """Let `Metrics` objects generate nothing within the ``with`` block."""
    token = leaves_out_hasten.set(True)
    try:
        yield
    finally:
        leaves_out_hasten.reset(token)


def encode_families(families: Sequence[Metric]) -> bytes:
    """Encode metrics as JSON, to send them to another process."""
    return json.dumps(
        [
            {
                "name": family.name,
                "documentation": family.documentation,
                "type": family.type,
                "samples": [[each.name, each.labels, each.value] for each in family.samples],
            }
            for family in families
        ]
    ).encode()


def decode_families_of_process(encoded: bytes, process_number: int) -> list[Metric]:
    """Decode the metrics of a process, and add its number to them as the label process."""
    found: list[dict[str, Any]] = json.loads(encoded)
    families = []
    for each in found:
        family = Metric(each["name"], each["documentation"], each["type"])
        for name, labels, value in each["samples"]:
            family.add_sample(name, {**labels, "process": str(process_number)}, value)
        families.append(family)
    return families


def merge_families_with_same_name(families: Sequence[Metric]) -> list[Metric]:
    """Put the samples of all families with the same name into one family."""
    merged: dict[str, Metric] = {}
    for family in families:
        if family.name in merged:
            merged[family.name].samples.extend(family.samples)
        else:
            merged[family.name] = family
    return list(merged.values())
