"""Compress what an application answers, where that pays, and decompress what it is sent, safely."""

from hasten.compression.breach import Guard, Padding
from hasten.compression.decompression import DecompressionMiddleware
from hasten.compression.dictionaries import Dictionaries
from hasten.compression.events import Coded, Counters, Skipped
from hasten.compression.head import Reason
from hasten.compression.marks import no_compression
from hasten.compression.media_types import MediaTypes, default_types
from hasten.compression.middleware import CompressionMiddleware
from hasten.compression.variants import Variants

__all__ = [
    "Coded",
    "CompressionMiddleware",
    "Counters",
    "DecompressionMiddleware",
    "Dictionaries",
    "Guard",
    "MediaTypes",
    "Padding",
    "Reason",
    "Skipped",
    "Variants",
    "default_types",
    "no_compression",
]
