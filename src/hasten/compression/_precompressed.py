"""Serve files that were compressed in advance: FILE.zst, FILE.br or FILE.gz instead of FILE."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

from hasten._asgi import ASGIApp, Message, Receive, Scope, Send, join_header_values
from hasten._loops import run_in_thread
from hasten.compression._head import ResponseHead
from hasten.compression._negotiation import (
    MAX_HEADER_BYTES,
    NO_PREFERENCES,
    Coding,
    make_cached_chooser,
)
from hasten.compression._options import to_codings
from hasten.errors import InvalidOption

SUFFIXES: Final = {
    Coding.ZSTD: ".zst",
    Coding.BROTLI: ".br",
    Coding.GZIP: ".gz",
}

_CODED_STATUSES: Final = frozenset({200, 206})
_ABOUT_A_FILE: Final = _CODED_STATUSES | {304, 416}


class Precompressed:
    """Serve a compressed copy of a static file if there is one in the same directory.

    Wrap Starlette's StaticFiles or a similar application:
    ``Precompressed(StaticFiles(directory="static"), "static")``. If a client accepts brotli, its
    request for ``app.js`` is changed to ``app.js.br`` if that file exists and is not older. So ETag
    and ranges are those of the compressed file. The middleware sets Content-Type, Content-Encoding
    and Vary of the response. Compress the files as far as possible: ``zstd -19``, ``brotli -q 11``,
    ``gzip -9``.

    directory is the one that the application serves. encodings is in order of preference. No
    compression library needs to be installed. Raises `InvalidOption`.
    """

    def __init__(
        self,
        app: ASGIApp,
        directory: str | os.PathLike[str],
        *,
        encodings: Collection[str] = ("zstd", "br", "gzip"),
    ) -> None:
        self.app = app
        codings = to_codings("encodings", encodings)
        if Coding.DEFLATE in codings:
            expected = "a sequence of 'zstd', 'br', 'gzip': no file format uses deflate alone"
            raise InvalidOption("encodings", encodings, expected)
        self._suffixes = {coding: SUFFIXES[coding] for coding in codings}
        self._choose = make_cached_chooser(codings)
        self._root = Path(directory).resolve()

    def __repr__(self) -> str:
        return f"<Precompressed {self._root}: {', '.join(self._suffixes)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            await self.app(scope, receive, send)
            return
        found = await run_in_thread(self._find_variants, _get_path_below_mount(scope))
        if not found:
            await self.app(scope, receive, send)
            return
        accepted = join_header_values(scope["headers"], b"accept-encoding") or b""
        preferences = (
            self._choose(accepted) if len(accepted) <= MAX_HEADER_BYTES else NO_PREFERENCES
        )
        variant = next((found[coding] for coding in preferences.codings if coding in found), None)
        if variant is not None:
            scope = _with_suffixed_path(scope, variant.suffix)

        async def send_variant(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = _with_variant_headers(message, variant)
            await send(message)

        await self.app(scope, receive, send_variant)

    def _find_variants(self, path: str) -> dict[Coding, _FileVariant]:
        """Return the compressed copies of a file that are up to date, by coding."""
        try:
            file = self._root / path.lstrip("/")
            inside = file.resolve().is_relative_to(self._root)
            if not inside or path.endswith("/") or not file.is_file():
                return {}
            changed = file.stat().st_mtime
            found = {}
            for coding, suffix in self._suffixes.items():
                beside = file.with_name(file.name + suffix)
                # An older copy was made from an earlier version of the file.
                if beside.is_file() and beside.stat().st_mtime >= changed:
                    found[coding] = _FileVariant(coding, suffix, _guess_content_type(file.name))
            return found
        except (OSError, ValueError):  # for instance, the name is too long or has a null byte
            return {}


class _FileVariant(NamedTuple):
    """A compressed copy of a static file."""

    coding: Coding
    suffix: str
    content_type: bytes
    """The media type of the original file."""


def _get_path_below_mount(scope: Scope) -> str:
    """Return the path of a request without the prefix at which the application is mounted."""
    path: str = scope["path"]
    mount: str = scope.get("root_path", "")
    return path[len(mount) :] if mount and path.startswith(mount) else path


def _with_suffixed_path(scope: Scope, suffix: str) -> Scope:
    """Return a copy of the scope with a suffix such as ".br" appended to the path."""
    scope = {**scope, "path": scope["path"] + suffix}
    if scope.get("raw_path") is not None:
        scope["raw_path"] += suffix.encode()
    return scope


def _with_variant_headers(message: Message, variant: _FileVariant | None) -> Message:
    """Return the start message of a response with the headers of a compressed copy.

    If variant is None, the original file is sent, and only Vary is added.
    """
    head = ResponseHead(message["status"], message.get("headers", ()))
    if head.status not in _ABOUT_A_FILE:
        return {**message, "headers": head.headers}
    headers = head.make_headers_with_vary()
    if variant is not None and head.status in _CODED_STATUSES:
        ours = {b"content-type", b"content-encoding"}
        headers = [line for line in headers if line[0].lower() not in ours]
        headers += [
            (b"content-type", variant.content_type),
            (b"content-encoding", variant.coding.encode()),
        ]
    return {**message, "headers": headers}


def _guess_content_type(name: str) -> bytes:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    return f"{kind}{charset}".encode()
