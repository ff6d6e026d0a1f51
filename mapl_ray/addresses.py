"""Recognize loopback hosts and cloud metadata services by their spelling. No name is resolved."""

from __future__ import annotations

import ipaddress
import socket
import unicodedata
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# Addresses where clouds hand out credentials, in addition to link-local ones (169.254.0.0/16, fe80::/10).
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's host
        "192.0.0.192",  # Oracle, classic
        "fd00:ec2::254",  # EC2
        "fd00:ec2::23",  # EKS Pod Identity
        "fd20:ce::254",  # Google Compute Engine
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:42::42",  # Scaleway
    )
)
_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata.azure.internal",
        "metadata.tencentyun.com",
        "api.metadata.cloud.ibm.com",
        "metadata.platformequinix.com",
    }
)
# IPv6 networks whose last 32 bits are an IPv4 address: compatible, translated (RFC 2765, RFC 6052, RFC 8215).
_EMBEDDING = tuple(
    ipaddress.IPv6Network(text) for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)


def is_loopback(host: str) -> bool:
    """Whether the host can only be this machine. A name other than `localhost` counts as remote."""
    address = _parsed(host)
    if address is None:
        return _plain(host) == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def is_metadata_service(host: str) -> bool:
    """Whether the host is the metadata service of a cloud, in any notation that a resolver accepts.

    This covers decimal, octal and hexadecimal IPv4, full-width digits, and IPv4 inside IPv6 (mapped, compatible,
    NAT64, 6to4, Teredo). A name that merely resolves to such an address is not recognized.
    """
    address = _parsed(host)
    if address is None:
        return _plain(host) in _METADATA_NAMES
    return any(one.is_link_local or one in _METADATA for one in (address, *_inside(address)))


def _plain(host: str) -> str:
    """The host as a resolver sees it: compatibility characters folded, no zone, no final dot, lower case."""
    folded = unicodedata.normalize("NFKC", host).replace("\u3002", ".")
    return folded.strip("[]").partition("%")[0].rstrip(".").lower()


def _parsed(host: str) -> Address | None:
    plain = _plain(host)
    try:
        return ipaddress.ip_address(plain)
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_aton(plain))  # also 2852039166, 0xa9fea9fe and 169.16689662
    except (OSError, ValueError):
        return None


def _inside(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address carries."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _EMBEDDING):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]
