"""Compress responses where that makes them smaller, and decompress requests within limits."""

from hasten.compression.breach import Guard, Padding
from hasten.compression.cache import CompressionCache
from hasten.compression.decompression import DecompressionMiddleware
from hasten.compression.dictionaries import Dictionaries
from hasten.compression.events import Compressed, CompressionEvent, Skipped
from hasten.compression.head import ETagPolicy, SkipReason
from hasten.compression.marks import no_compression
from hasten.compression.media_types import DEFAULT_MEDIA_TYPES, MediaTypes
from hasten.compression.middleware import CompressionMiddleware
from hasten.compression.options import (
    BreachPolicy,
    CompressionLevel,
    FlushPolicy,
    ResponseFilter,
)
from hasten.compression.precompressed import Precompressed
from hasten.compression.stats import CompressionStats, EncodingStats

__all__ = [
    "DEFAULT_MEDIA_TYPES",
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
    "Guard",
    "MediaTypes",
    "Padding",
    "Precompressed",
    "ResponseFilter",
    "SkipReason",
    "Skipped",
    "no_compression",
]
