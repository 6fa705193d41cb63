"""What the tests say about responses, once."""

from __future__ import annotations

from tests.http.client import Response


def coded(response: Response, coding: str, body: bytes) -> None:
    """It is in that coding, and all that is said about it is true."""
    assert response.coding == coding
    assert response.decoded() == body
    assert response.get("content-length") in {None, str(len(response.body))}
    assert len(response.body) < len(body)
    varies(response)


def plain(response: Response, body: bytes) -> None:
    """It is not coded, and arrived as the application sent it."""
    assert response.coding is None
    assert response.all("content-encoding") == []
    assert response.is_whole
    assert response.body == body
    assert response.get("content-length") in {None, str(len(body))}


def varies(response: Response) -> None:
    assert response.members("vary").count("accept-encoding") == 1


def untouched(response: Response, bare: Response) -> None:
    """It is what the application sends without the middleware."""
    assert response.status == bare.status
    assert response.headers == bare.headers
    assert response.body == bare.body
