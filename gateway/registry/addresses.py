"""Where a candidate may live: refuses link-local and metadata addresses, however they are written. Pure but for DNS."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
RESOLVE_S = 3.0

# Addresses outside of the link-local ranges at which clouds hand out credentials.
METADATA_ADDRESSES: dict[Address, str] = {
    ipaddress.ip_address("100.100.100.200"): "Alibaba Cloud metadata",
    ipaddress.ip_address("168.63.129.16"): "Azure platform",
    ipaddress.ip_address("192.0.0.192"): "Oracle Cloud metadata",
    ipaddress.ip_address("fd00:ec2::254"): "AWS metadata",
    ipaddress.ip_address("fd20:ce::254"): "Google Cloud metadata",
}
METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """What the operator allows; the defaults are those of the settings."""

    allow_private_networks: bool = True
    allow_link_local: bool = False


def refusal(address: Address, rules: NetworkRules) -> str | None:
    """Why a candidate may not live at this address; None where it may."""
    real = _inner(address)
    if real in METADATA_ADDRESSES and not rules.allow_link_local:
        return f"{address} is a {METADATA_ADDRESSES[real]} address"
    if real.is_link_local and not rules.allow_link_local:
        return f"{address} is a link-local address, where clouds hand out credentials"
    if real.is_unspecified or real.is_multicast or (real.version == 4 and int(real) == 2**32 - 1):
        return f"{address} is not the address of one server"
    if real.is_private and not real.is_link_local and not rules.allow_private_networks:
        return f"{address} is a private address, which allow_private_networks forbids"
    return None


def as_address(host: str) -> Address | None:
    """The address that `host` spells out, in any form a resolver takes (`0xA9FEA9FE`, `2852039166`); None for names."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    # Only what looks like a number: inet_aton also takes an address followed by other words.
    if host and set(host.lower()) <= set("0123456789abcdefx."):
        try:
            return ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return None
    return None


def is_metadata_name(host: str) -> bool:
    """Whether the name is one by which clouds serve credentials to their machines."""
    return host.rstrip(".").lower() in METADATA_NAMES


async def resolve(host: str, seconds: float = RESOLVE_S) -> Sequence[Address]:
    """All addresses of a host name. Raises OSError (TimeoutError included) where it cannot be resolved now."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds):
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found]


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one wraps, where it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
