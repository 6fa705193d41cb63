"""Metrics for Prometheus: jobs, workers, compression, rate limits and load shedding.

    metrics = Metrics(worker)
    app.mount("/metrics", metrics.asgi())

`hasten worker --metrics-port 9100` serves the same without any code.
"""

from hasten import _extras

_extras.require("prometheus_client", extra="prometheus")

from hasten.prometheus._metrics import Metrics  # noqa: E402

__all__ = ["Metrics"]
