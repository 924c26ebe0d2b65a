"""Registration checks: each bad value is named with its fix; what only looks odd is a warning."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.errors import InvalidBody
from gateway.registry.addresses import Address, NetworkRules, as_address, resolve
from gateway.registry.records import Candidate, Deployment
from gateway.registry.validation import check_candidate

HOSTS = {
    "api.example.com": ["93.184.215.14"],
    "rebound.example.com": ["93.184.215.14", "169.254.169.254"],
    "home.example.com": ["192.168.1.5"],
}


async def look_up(host: str) -> Sequence[Address]:
    """DNS, scripted."""
    if host not in HOSTS:
        raise socket.gaierror("unknown")
    return [ipaddress.ip_address(text) for text in HOSTS[host]]


def served_at(base_url: str, **changes: Any) -> Candidate:
    place = Deployment("small#0", base_url, "small-1")
    place = dataclasses.replace(place, **{k: changes.pop(k) for k in list(changes) if hasattr(place, k)})
    return Candidate("small", (place,), price_in=1.0, price_out=2.0, **changes)


async def complaint(candidate: Candidate, rules: NetworkRules | None = None) -> str:
    with pytest.raises(InvalidBody) as caught:
        await check_candidate(candidate, rules or NetworkRules(), look_up)
    return str(caught.value)


async def warnings_of(candidate: Candidate) -> str:
    return "\n".join(await check_candidate(candidate, NetworkRules(), look_up))


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "instance-data",
        "rebound.example.com",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
async def test_metadata_and_link_local_addresses_are_refused_however_they_are_written(host: str) -> None:
    assert "base_url" in await complaint(served_at(f"http://{host}/v1"))


@pytest.mark.parametrize("host", ["169.254.169.254", "metadata.google.internal", "[fe80::1]"])
async def test_they_are_let_in_where_the_operator_allows_them(host: str) -> None:
    await check_candidate(served_at(f"http://{host}/v1"), NetworkRules(allow_link_local=True), look_up)


@pytest.mark.parametrize("host", ["10.1.2.3", "home.example.com", "127.0.0.1", "[::1]", "[fd12::1]"])
async def test_private_addresses_are_usual_and_can_be_forbidden(host: str) -> None:
    await check_candidate(served_at(f"http://{host}/v1"), NetworkRules(), look_up)
    said = await complaint(served_at(f"http://{host}/v1"), NetworkRules(allow_private_networks=False))
    assert "allow_private_networks" in said


@pytest.mark.parametrize(
    ("base_url", "says"),
    [
        ("ftp://host/v1", "must begin with http"),
        ("127.0.0.1:9100/v1", "must begin with http"),
        ("", "needs one"),
        ("http:///v1", "no host"),
        ("http://host:0/v1", "no host or port"),
        ("http://host:99999/v1", "not a URL"),
        ("http://[::1/v1", "not a URL"),
        ("http://host/v1?key=abc", "query or fragment"),
        ("http://host/v1/chat/completions", "Leave out /chat/completions"),
        ("http://host/v1\nx", "control characters"),
        ("http://host/" + "v" * 3000, "too long"),
    ],
)
async def test_a_bad_base_url_is_told_what_is_wrong(base_url: str, says: str) -> None:
    assert says in await complaint(served_at(base_url))


async def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    said = await complaint(served_at("https://user:hunter2@api.example.com/v1"))
    assert "credentials" in said
    assert "hunter2" not in said


async def test_a_key_given_in_place_of_its_variable_is_refused_and_not_repeated() -> None:
    said = await complaint(served_at("https://api.example.com/v1", api_key_env="sk-proj-abcdef123456"))
    assert "looks like a key" in said
    assert "abcdef" not in said


async def test_the_gateways_own_secrets_are_never_sent_to_a_provider() -> None:
    said = await complaint(served_at("https://api.example.com/v1", api_key_env="ORBWEAVER_ADMIN_KEY"))
    assert "belongs to the gateway" in said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a b"}, "'a b' is not a usable name"),
        ({"name": "auto:best"}, "reserved"),
        ({"price_in": float("inf")}, "inf is not a price"),
        ({"price_out": -0.5}, "-0.5 is not a price"),
        ({"price_out": 1e9}, "is not a price"),
        ({"context_window": 0}, "0 is not a number of tokens"),
        ({"context_window": 100, "max_output_tokens": 200}, "more than the context window of 100"),
        ({"strength": 1.5}, "1.5 is out of range"),
        ({"params_total_b": 7.0, "params_active_b": 8.0}, "more than all"),
        ({"release_date": "soon"}, "'soon' is not a date"),
        ({"weight": float("nan")}, "nan is not a weight"),
        ({"upstream_model": ""}, "is not a model name"),
        ({"provider": "Open AI"}, "is not a provider"),
    ],
)
async def test_a_bad_value_is_named(changes: dict[str, Any], says: str) -> None:
    good = served_at("https://api.example.com/v1")
    place = {k: v for k, v in changes.items() if hasattr(good.deployments[0], k)}
    rest = {k: v for k, v in changes.items() if k not in place}
    bad = dataclasses.replace(good, deployments=(dataclasses.replace(good.deployments[0], **place),), **rest)
    assert says in await complaint(bad)


async def test_every_bad_value_is_named_at_once() -> None:
    said = await complaint(dataclasses.replace(served_at("ftp://x"), price_out=-1.0, strength=2.0))
    assert all(field in said for field in ("base_url", "price_out", "strength"))


async def test_odd_but_possible_things_are_warnings() -> None:
    odd = dataclasses.replace(served_at("http://api.example.com", api_key_env="NOT_SET"), price_in=0.0000015)
    said = await warnings_of(odd)
    assert "NOT_SET is not set here" in said
    assert "below /v1" in said
    assert "was it meant per token" in said
    assert "unencrypted" in said


async def test_a_host_that_cannot_be_resolved_now_is_a_warning() -> None:
    assert "cannot be resolved now" in await warnings_of(served_at("https://later.example.com/v1"))


async def test_one_price_alone_is_a_warning() -> None:
    assert "price_out: not given" in await warnings_of(
        dataclasses.replace(served_at("https://api.example.com/v1"), price_out=None)
    )


async def test_a_good_registration_has_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_KEY", "x")
    assert await warnings_of(served_at("https://api.example.com/v1", api_key_env="SMALL_KEY")) == ""


@pytest.mark.parametrize("host", ["example.com", "face.example", "x.0", "1.2.3.4.5", ""])
def test_names_are_not_taken_for_addresses(host: str) -> None:
    assert as_address(host) is None


async def test_loopback_names_resolve() -> None:
    assert all(address.is_loopback for address in await resolve("localhost"))
