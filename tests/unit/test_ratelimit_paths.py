"""Which paths a limit applies to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten._problems import make_refusal_response
from hasten.ratelimit._http.paths import LimitPaths, strip_root_path


@pytest.mark.parametrize(
    ("path", "is_for"),
    [
        ("/api", True), ("/api/", True), ("/api/x", True), ("/api/x/", True), ("//api/x", True),
        ("/api//x", True),
        ("api/x", True), ("/api\n", True), ("http://x/api/x", True), ("http://[/api", False),
        ("http://x", False), ("/", False), ("", False), ("/apix", False), ("/health", False),
        ("/x/api/", False), ("/API/x", False), ("/api%2Fx", False),
    ],
)  # fmt: skip
def test_a_limit_covers_its_path_and_all_below_it(path: str, is_for: bool) -> None:
    """The server has decoded the path, so it is not decoded again."""
    for pattern in ("/api/", "/api", "//api//"):
        assert bool(LimitPaths([[pattern]]).find_indexes_of_matching_limits(path)) is is_for


def test_several_limits_in_their_order() -> None:
    paths = LimitPaths([["/api/"], None, ["/b", "/api/auth"], ["/"]])
    assert paths.find_indexes_of_matching_limits("/api/auth/login") == (0, 1, 2, 3)
    assert paths.find_indexes_of_matching_limits("/b") == (1, 2, 3)
    assert paths.find_indexes_of_matching_limits("/c") == (1, 3)


@pytest.mark.parametrize("path", ["/v1/api/x", "/api/x", "/v1//api/x"])
def test_the_root_path_is_not_matched(path: str) -> None:
    assert LimitPaths([["/api/"]]).find_indexes_of_matching_limits(
        strip_root_path(path, "/v1")
    ) == (0,)
    assert (
        LimitPaths([["/api/"]]).find_indexes_of_matching_limits(strip_root_path("/v1x/api", "/v1"))
        == ()
    )


@given(st.text(max_size=40), st.text(max_size=10))
def test_any_path_can_be_looked_at(path: str, root_path: str) -> None:
    assert LimitPaths([None]).find_indexes_of_matching_limits(strip_root_path(path, root_path)) == (
        0,
    )
    LimitPaths([["/api/"]]).find_indexes_of_matching_limits(path, strip_root_path(path, root_path))


@given(st.lists(st.sampled_from(["api", "", "x", ".."]), max_size=5))
def test_extra_slashes_do_not_escape_a_limit(parts: list[str]) -> None:
    """More slashes do not bypass a limit."""
    path = "/api/" + "/".join(parts)
    assert LimitPaths([["/api/"]]).find_indexes_of_matching_limits(path) == (0,)
    assert LimitPaths([["/api/"]]).find_indexes_of_matching_limits(path.replace("/", "///")) == (0,)


class TestRefusals:
    def test_a_message_is_sent_as_it_is(self) -> None:
        text = make_refusal_response("é\n", status=429, exceeded_limits=["a"])
        assert text.body == "é\n".encode()
        assert text.headers["content-type"] == "text/plain; charset=utf-8"
        assert (
            make_refusal_response({"a": 1}, status=429, exceeded_limits=["a"]).body == b'{"a": 1}'
        )

    @pytest.mark.parametrize("message", ["x", {"a": 1}, None])
    def test_caches_do_not_store_a_refusal(self, message: object) -> None:
        found = make_refusal_response(message, status=429, exceeded_limits=["a"])  # type: ignore[arg-type]
        assert found.headers["cache-control"] == "no-store"
        assert found.headers["content-length"] == str(len(found.body))

    def test_a_problem_document_names_its_type_and_title(self) -> None:
        assert (
            b"temporary-reduced-capacity"
            in make_refusal_response(
                None, status=503, exceeded_limits=[], server_lacks_capacity=True
            ).body
        )
        found = make_refusal_response(
            None, status=599, exceeded_limits=[], server_lacks_capacity=True
        )
        assert b'"title": "Refused"' in found.body
        assert b"violated" not in found.body

    def test_the_plain_text_is_the_detail_of_the_problem(self) -> None:
        for server_lacks_capacity in (False, True):
            problem = make_refusal_response(
                None, status=503, exceeded_limits=[], server_lacks_capacity=server_lacks_capacity
            )
            text = make_refusal_response(
                None,
                status=503,
                exceeded_limits=[],
                server_lacks_capacity=server_lacks_capacity,
                is_text=True,
            )
            assert text.body.decode() == json.loads(problem.body)["detail"]
