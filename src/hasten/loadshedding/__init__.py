"""Load shedding: refuse requests while a process has no capacity for them."""

from hasten._request_info import RequestInfo
from hasten.loadshedding._middleware import LoadSheddingMiddleware, ShedRequest
from hasten.loadshedding._stats import LoadSheddingStats

__all__ = ["LoadSheddingMiddleware", "LoadSheddingStats", "RequestInfo", "ShedRequest"]
