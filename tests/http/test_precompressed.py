"""Files that were compressed in advance, served by Starlette's StaticFiles."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from hasten.compression import CompressionMiddleware, Precompressed
from hasten.errors import InvalidOption
from tests.http.client import Client
from tests.http.codings import encode

SCRIPT = b"export const answer = 42;\n" * 200
SUFFIXES = {"zstd": ".zst", "br": ".br", "gzip": ".gz"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A script with all variants, and a page with none."""
    root = tmp_path / "static"
    (root / "js").mkdir(parents=True)
    (root / "js" / "app.js").write_bytes(SCRIPT)
    for coding, suffix in SUFFIXES.items():
        (root / "js" / f"app.js{suffix}").write_bytes(encode(coding, SCRIPT))
    (root / "page.html").write_bytes(SCRIPT)
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "secret.txt.gz").write_bytes(gzip.compress(b"secret"))
    return root


def serve(folder: Path, **options: tuple[str, ...]) -> Client:
    """Serve the folder as a mount of an application."""
    files = Precompressed(StaticFiles(directory=folder), folder, **options)
    return Client(Starlette(routes=[Mount("/static", files)]))


@pytest.mark.parametrize("coding", SUFFIXES)
async def test_the_compressed_file_is_served(folder: Path, coding: str) -> None:
    response = await serve(folder).get(coding, path="/static/js/app.js")
    kept = (folder / "js" / f"app.js{SUFFIXES[coding]}").read_bytes()
    assert response.status == 200
    assert response.get("content-encoding") == coding
    assert response.body == kept
    assert response.decoded() == SCRIPT
    assert response.get("content-length") == str(len(kept))
    assert response.get("content-type") == "text/javascript; charset=utf-8"
    assert response.members("vary") == ["accept-encoding"]


async def test_the_client_decides_then_the_order_of_encodings(folder: Path) -> None:
    client = serve(folder)
    for accept, coding in {
        "gzip, deflate, br, zstd": "zstd",
        "gzip, br;q=0.9": "gzip",
        "*": "zstd",
    }.items():
        response = await client.get(accept, path="/static/js/app.js")
        assert response.get("content-encoding") == coding
    response = await serve(folder, encodings=("gzip",)).get("br", path="/static/js/app.js")
    assert response.get("content-encoding") is None


@pytest.mark.parametrize("accept", [None, "identity", "gzip;q=0", "x" * 5000])
async def test_other_clients_get_the_original_with_vary(folder: Path, accept: str | None) -> None:
    response = await serve(folder).get(accept, path="/static/js/app.js")
    assert (response.body, response.get("content-encoding")) == (SCRIPT, None)
    assert response.members("vary") == ["accept-encoding"]


async def test_a_file_without_variants_is_served_unchanged(folder: Path) -> None:
    response = await serve(folder).get("gzip", path="/static/page.html")
    assert response.body == SCRIPT
    assert response.get("vary") is None


async def test_variants_have_their_own_etags(folder: Path) -> None:
    """If-None-Match works for each variant alone."""
    client = serve(folder)
    tags = {}
    for coding in (*SUFFIXES, "identity"):
        tags[coding] = (await client.get(coding, path="/static/js/app.js")).get("etag")
    assert len(set(tags.values())) == 4
    for held, status in ((tags["br"], 304), (tags["gzip"], 200)):
        assert held is not None
        headers = [(b"if-none-match", held.encode())]
        response = await client.get("br", path="/static/js/app.js", headers=headers)
        assert response.status == status
        assert response.members("vary") == ["accept-encoding"]


async def test_a_range_is_of_the_compressed_file(folder: Path) -> None:
    headers = [(b"range", b"bytes=5-14")]
    response = await serve(folder).get("gzip", path="/static/js/app.js", headers=headers)
    kept = (folder / "js" / "app.js.gz").read_bytes()
    assert response.status == 206
    assert response.body == kept[5:15]
    assert response.get("content-encoding") == "gzip"
    assert response.get("content-range") == f"bytes 5-14/{len(kept)}"


async def test_a_variant_that_is_older_than_its_file_is_not_served(folder: Path) -> None:
    os.utime(folder / "js" / "app.js.zst", (1, 1))
    response = await serve(folder).get("zstd, gzip;q=0.5", path="/static/js/app.js")
    assert response.get("content-encoding") == "gzip"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../secret.txt",
        "/static/js/../../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static//etc/passwd",
        "/static/\0",
        "/static/" + "x" * 5000,
        "/static/js",
        "/static/js/app.jsx",
    ],
)
async def test_files_outside_of_the_directory_are_not_served(folder: Path, path: str) -> None:
    response = await serve(folder).get("gzip", path=path)
    assert response.status == 404
    assert response.get("content-encoding") is None


@pytest.mark.parametrize("accept", ["zstd", "br", "gzip"])
@pytest.mark.parametrize("path", ["/link.js", "/outside.js", "/js/app.js/", "/js/", "/link.js/"])
async def test_links_and_trailing_slashes_stay(folder: Path, path: str, accept: str) -> None:
    """The target of the link has a variant, and the link has none."""
    (folder / "link.js").symlink_to("js/app.js")
    (folder / "outside.js").symlink_to(folder.parent / "secret.txt")
    bare = await Client(Starlette(routes=[Mount("/static", StaticFiles(directory=folder))])).get(
        accept, path=f"/static{path}"
    )
    response = await serve(folder).get(accept, path=f"/static{path}")
    assert response == bare
    assert bare.status == (404 if path in {"/outside.js", "/js/"} else 200)


async def test_compression_middleware_does_not_change_precompressed_files(folder: Path) -> None:
    """Precompressed files are sent unchanged, and all other files are compressed."""
    files = Precompressed(StaticFiles(directory=folder), folder)
    client = Client(CompressionMiddleware(files))
    kept = (folder / "js" / "app.js.br").read_bytes()
    assert (await client.get("br", path="/js/app.js")).body == kept
    response = await client.get("br", path="/page.html")
    assert response.get("content-encoding") == "br"
    assert response.decoded() == SCRIPT


async def test_head_gets_the_same_headers(folder: Path) -> None:
    client = serve(folder)
    response = await client.head("br", path="/static/js/app.js")
    kept = (folder / "js" / "app.js.br").read_bytes()
    assert response.get("content-encoding") == "br"
    assert response.get("content-length") == str(len(kept))


def test_deflate_is_not_an_encoding_of_files(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidOption, match=r"encodings=\('deflate',\): must be a sequence of 'zstd', 'br', 'gzip'"
    ):
        Precompressed(StaticFiles(directory=tmp_path), tmp_path, encodings=("deflate",))
