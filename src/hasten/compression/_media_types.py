"""Which media types are worth compressing, and which ones are live streams."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

# A suffix names the underlying format: image/svg+xml is XML. RFC 6838, section 4.2.8.
_SUFFIXES: Final = ("+json", "+xml", "+yaml", "+text", "+json-seq", "+protobuf")

_ALLOWED: Final = frozenset(
    """
    application/dart application/ecmascript application/edi-x12 application/edifact
    application/geo+json-seq application/graphql application/javascript application/json
    application/json5 application/json-seq application/jsonl application/jsonlines
    application/ld+json application/n-quads application/n-triples application/ndjson
    application/postscript application/protobuf application/rtf application/sql
    application/toml application/trig application/vnd.google.protobuf
    application/vnd.ms-fontobject application/vnd.api+json application/wasm application/x-javascript
    application/x-json application/x-jsonlines application/x-ndjson application/x-protobuf
    application/x-sh application/x-font-opentype application/x-font-otf application/x-font-truetype
    application/x-font-ttf application/x-tex application/x-www-form-urlencoded application/x-yaml
    application/xml application/xml-dtd application/yaml
    font/collection font/otf font/sfnt font/ttf
    image/bmp image/vnd.microsoft.icon image/x-icon image/x-ms-bmp
    message/http message/rfc822 model/gltf-binary model/obj model/step model/stl model/vrml
    """.split()
)

# Types whose clients process each event or line when it arrives.
_LIVE: Final = frozenset(
    """
    text/event-stream application/x-ndjson application/ndjson application/jsonl
    application/jsonlines application/x-jsonlines application/json-seq application/geo+json-seq
    application/stream+json application/grpc-web-text
    """.split()
)


@dataclass(frozen=True, slots=True)
class MediaTypes:
    """The set of media types to compress: the built-in ones, plus added, minus removed.

    The built-in ones include patterns such as ``text/*``, ``+json`` and ``+xml``. Add and remove
    types with operators, and with parentheses, because ``-`` binds more tightly than ``|``:
    ``(DEFAULT_MEDIA_TYPES | {"application/x-tiles"}) - {"text/csv"}``. Unknown media types are not
    in the set, because most binary formats are compressed already.
    """

    added: frozenset[str] = field(default_factory=frozenset)
    removed: frozenset[str] = field(default_factory=frozenset)

    def __call__(self, media_type: str) -> bool:
        """Return whether a media type, in lower case and without parameters, is in the set."""
        if media_type in self.removed:
            return False
        return media_type in self.added or _is_compressible(media_type)

    def __or__(self, types: Collection[str]) -> MediaTypes:
        names = _normalize_names(types)
        return MediaTypes(self.added | names, self.removed - names)

    def __sub__(self, types: Collection[str]) -> MediaTypes:
        names = _normalize_names(types)
        return MediaTypes(self.added - names, self.removed | names)


DEFAULT_MEDIA_TYPES: Final = MediaTypes()
"""The media types that are compressed by default: text, JSON, XML, scripts, fonts and more."""


def parse_media_type(content_type: str) -> str:
    """Return the media type of a Content-Type value, in lower case and without parameters."""
    return content_type.partition(";")[0].strip(" \t").lower()


def is_live_media_type(media_type: str) -> bool:
    """Return whether clients process each event, line or record when it arrives.

    An example is text/event-stream.
    """
    return media_type in _LIVE


def _is_compressible(media_type: str) -> bool:
    # gRPC compresses its messages itself. gRPC-Web has another media type.
    if media_type == "application/grpc" or media_type.startswith("application/grpc+"):
        return False
    return (
        media_type.startswith("text/")
        or media_type in _ALLOWED
        or media_type.endswith(_SUFFIXES)
        or media_type == "application/grpc-web-text"
    )


def _normalize_names(types: Collection[str]) -> frozenset[str]:
    return frozenset(
        parse_media_type(name) for name in ([types] if isinstance(types, str) else types)
    )
