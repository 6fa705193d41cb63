"""Checks of responses that many tests share."""

from __future__ import annotations

from tests.http.client import Response


def coded(response: Response, coding: str, body: bytes) -> Response:
    """Check that it is in that coding, with the headers for it. Returns the response."""
    assert response.coding == coding
    assert response.decoded() == body
    assert response.get("content-length") in {None, str(len(response.body))}
    assert len(response.body) < len(body)
    varies(response)
    return response


def plain(response: Response, body: bytes) -> Response:
    """Check that it is not coded, and whole. Returns the response."""
    assert response.coding is None
    assert response.all("content-encoding") == []
    assert response.is_whole
    assert response.body == body
    assert response.get("content-length") in {None, str(len(body))}
    return response


def varies(response: Response) -> None:
    assert response.members("vary").count("accept-encoding") == 1


def untouched(response: Response, bare: Response) -> None:
    """Check that it is what the application sends without the middleware."""
    assert response.status == bare.status
    assert response.headers == bare.headers
    assert response.body == bare.body
