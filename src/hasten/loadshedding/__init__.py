"""Load shedding: refuse the requests that exceed the capacity of a process."""

from hasten._request_info import RequestInfo
from hasten.loadshedding._middleware import LoadSheddingMiddleware, Shed
from hasten.loadshedding._stats import LoadSheddingStats

__all__ = ["LoadSheddingMiddleware", "LoadSheddingStats", "RequestInfo", "Shed"]
