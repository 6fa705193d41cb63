"""The metrics of compression, rate limits and load shedding, from the counters that they keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:  # a worker process needs none of them
    from hasten.compression import CompressionStats
    from hasten.loadshedding import LoadSheddingStats
    from hasten.ratelimit import RateLimitStats


def compression_families(stats: CompressionStats) -> Iterator[Metric]:
    """Generate the metrics of a `CompressionMiddleware`."""
    responses = CounterMetricFamily(
        "hasten_compressed_responses", "Compressed responses.", labels=["encoding"]
    )
    before = CounterMetricFamily(
        "hasten_compression_input_bytes",
        "Bytes of compressed responses before compression.",
        labels=["encoding"],
    )
    after = CounterMetricFamily(
        "hasten_compression_output_bytes",
        "Bytes of compressed responses after compression.",
        labels=["encoding"],
    )
    seconds = CounterMetricFamily(
        "hasten_compression_seconds",
        "Time spent on compression, including the wait for a thread.",
        labels=["encoding"],
    )
    for encoding, total in stats.compressed.items():
        responses.add_metric([encoding], total.responses)
        before.add_metric([encoding], total.bytes_before)
        after.add_metric([encoding], total.bytes_after)
        seconds.add_metric([encoding], total.seconds)
    skipped = CounterMetricFamily(
        "hasten_uncompressed_responses",
        "Responses that were not compressed, by reason.",
        labels=["reason"],
    )
    for reason, count in stats.skipped.items():
        skipped.add_metric([str(reason)], count)
    yield from (responses, before, after, seconds, skipped)


def rate_limit_families(stats: RateLimitStats) -> Iterator[Metric]:
    """Generate the metrics of a `RateLimitMiddleware`."""
    requests = CounterMetricFamily(
        "hasten_rate_limit_requests",
        "Requests that a limit has allowed or refused.",
        labels=["limit", "decision"],
    )
    near = CounterMetricFamily(
        "hasten_rate_limit_near_limit",
        "Requests that passed with less than a fifth of the limit left.",
        labels=["limit"],
    )
    shadow = CounterMetricFamily(
        "hasten_rate_limit_shadow",
        "Requests that exceeded a shadow limit and passed.",
        labels=["limit"],
    )
    unavailable = CounterMetricFamily(
        "hasten_rate_limit_unavailable",
        "Requests that on_store_error decided, because the store was unavailable.",
        labels=["limit"],
    )
    for name, counts in list(stats.items()):
        requests.add_metric([name, "allowed"], counts.allowed)
        requests.add_metric([name, "refused"], counts.limited)
        near.add_metric([name], counts.near_limit)
        shadow.add_metric([name], counts.shadow)
        unavailable.add_metric([name], counts.unavailable)
    yield from (requests, near, shadow, unavailable)


def load_shedding_families(stats: LoadSheddingStats) -> Iterator[Metric]:
    """Generate the metrics of a `LoadSheddingMiddleware`."""
    requests = CounterMetricFamily(
        "hasten_load_shedding_requests",
        "Requests that load shedding has accepted or refused.",
        labels=["decision"],
    )
    requests.add_metric(["accepted"], stats.allowed)
    requests.add_metric(["refused"], stats.shed)
    yield requests
    yield CounterMetricFamily(
        "hasten_load_shedding_critical",
        "Requests that were accepted only because they are critical.",
        value=stats.critical,
    )
    yield GaugeMetricFamily(
        "hasten_load_shedding_in_flight",
        "Requests that the application is working on.",
        value=stats.in_flight,
    )
    yield GaugeMetricFamily(
        "hasten_load_shedding_limit",
        "How many concurrent requests are allowed at present.",
        value=stats.limit,
    )
