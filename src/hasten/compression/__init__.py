"""ASGI middlewares that compress response bodies and decompress request bodies, within limits."""

from hasten.compression._breach import BreachGuard
from hasten.compression._cache import CompressionCache
from hasten.compression._decompression import DecompressionMiddleware
from hasten.compression._dictionaries import Dictionaries
from hasten.compression._events import Compressed, CompressionEvent, Skipped
from hasten.compression._head import ETagPolicy, SkipReason
from hasten.compression._media_types import DEFAULT_MEDIA_TYPES, MediaTypes
from hasten.compression._middleware import CompressionMiddleware
from hasten.compression._opt_out import no_compression
from hasten.compression._options import (
    BreachPolicy,
    CompressionLevel,
    FlushPolicy,
    ResponseFilter,
)
from hasten.compression._precompressed import Precompressed
from hasten.compression._stats import CompressionStats, EncodingStats

__all__ = [
    "DEFAULT_MEDIA_TYPES",
    "BreachGuard",
    "BreachPolicy",
    "Compressed",
    "CompressionCache",
    "CompressionEvent",
    "CompressionLevel",
    "CompressionMiddleware",
    "CompressionStats",
    "DecompressionMiddleware",
    "Dictionaries",
    "ETagPolicy",
    "EncodingStats",
    "FlushPolicy",
    "MediaTypes",
    "Precompressed",
    "ResponseFilter",
    "SkipReason",
    "Skipped",
    "no_compression",
]
