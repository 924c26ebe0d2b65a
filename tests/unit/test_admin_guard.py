"""Who may use `/admin` without an admin key: a person on this machine, and nobody who comes through anything."""

from __future__ import annotations

import pytest

from gateway.api.admin_guard import check_key, is_loopback, why_not_local
from gateway.errors import Unauthorized

HERE = {"host": "127.0.0.1:8080"}


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "orbweaver.localhost", "127.8.8.8"])
def test_a_person_on_this_machine_may(host: str) -> None:
    assert why_not_local("127.0.0.1", "127.0.0.1", {"host": host}) is None


@pytest.mark.parametrize("listens_on", ["0.0.0.0", "::", "10.0.0.5", "gateway.example.com"])
def test_not_where_the_gateway_listens_for_others(listens_on: str) -> None:
    assert why_not_local(listens_on, "127.0.0.1", HERE) is not None


@pytest.mark.parametrize("peer", ["10.0.0.9", "", "2001:db8::1", "169.254.1.1"])
def test_not_for_a_peer_elsewhere(peer: str) -> None:
    assert why_not_local("127.0.0.1", peer, HERE) is not None


@pytest.mark.parametrize(
    "header", ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via", "x-real-ip"]
)
def test_not_through_a_proxy(header: str) -> None:
    assert why_not_local("127.0.0.1", "127.0.0.1", {**HERE, header: "127.0.0.1"}) is not None


@pytest.mark.parametrize(
    "host", ["evil.example:8080", "", "127.0.0.1.evil.example", "localhost.evil.example", "[", "a@b"]
)
def test_not_under_a_foreign_name_that_resolves_to_us(host: str) -> None:
    assert why_not_local("127.0.0.1", "127.0.0.1", {"host": host}) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_not_for_a_page_of_another_site(headers: dict[str, str]) -> None:
    assert why_not_local("127.0.0.1", "127.0.0.1", {**HERE, **headers}) is not None


def test_our_own_page_may() -> None:
    headers = {**HERE, "origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-origin"}
    assert why_not_local("localhost", "::1", headers) is None


@pytest.mark.parametrize(
    "headers", [{"authorization": "Bearer right"}, {"authorization": "bearer  right"}, {"x-api-key": "right"}]
)
def test_the_admin_key_may_come_in_either_header(headers: dict[str, str]) -> None:
    check_key(headers, "right")


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic right"}, {"x-api-key": "rightx"}]
)
def test_a_wrong_or_missing_admin_key_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        check_key(headers, "right")


def test_a_mapped_loopback_address_is_loopback() -> None:
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:10.0.0.1")
