"""Which addresses a handler may call: pure, on the address that is about to be connected to.

What this file guarantees: an address is *open* only where the special-purpose registries of IANA (RFC 6890 and what
updates it; as of 2026) call it globally reachable, and IPv6 only within 2000::/3, the space that is handed out. An IPv6
address that carries an IPv4 one is judged by both: hiding 127.0.0.1 as ``::ffff:127.0.0.1`` or ``64:ff9b::7f00:1``
gains nothing. The tables are ours, since Python's ``is_global`` knows less (3.11: multicast, 6to4 and NAT64 of private
addresses are global to it) and changes with its patch releases.
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


class Reach(IntEnum):
    """The larger, the less it may be called."""

    OPEN = 0
    INNER = 1
    """Not globally routable: called only where the operator said ``allow_private``."""
    NEVER = 2
    """Link-local, where clouds keep the credentials of their machines."""


INNER_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; Linux takes it for the machine itself
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared, RFC 6598
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays, gone
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
NEVER_4: Final = IPv4Network("169.254.0.0/16")

HANDED_OUT_6: Final = IPv6Network("2000::/3")
INNER_6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, deprecated by RFC 7526
            "3fff::/20",  # documentation
        ),
    )
)
NEVER_6: Final = (
    IPv6Network("fe80::/10"),
    IPv6Network("fd00:ec2::254/128"),  # a cloud's metadata by IPv6, which isn't link-local there
)

MAPPED: Final = IPv6Network("::ffff:0:0/96")
NAT64: Final = IPv6Network("64:ff9b::/96")
NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
COMPATIBLE: Final = IPv6Network("::/96")
SIX_TO_FOUR: Final = IPv6Network("2002::/16")
TEREDO: Final = IPv6Network("2001::/32")
_LOW: Final = 0xFFFF_FFFF


def reach(text: str) -> Reach:
    """Of an address as the resolver gives it, with a scope (``fe80::1%eth0``) or without. ValueError for a name."""
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return _reach_4(address)
    carried = max((_reach_4(inner) for inner in _carried(address)), default=Reach.OPEN)
    return max(_reach_6(address), carried)


def _reach_4(address: IPv4Address) -> Reach:
    if address in NEVER_4:
        return Reach.NEVER
    return Reach.INNER if any(address in network for network in INNER_4) else Reach.OPEN


def _reach_6(address: IPv6Address) -> Reach:
    if any(address in network for network in NEVER_6):
        return Reach.NEVER
    if address in MAPPED or address in NAT64:
        return Reach.OPEN  # nothing but another writing of the address that it carries
    if address not in HANDED_OUT_6 or any(address in network for network in INNER_6):
        return Reach.INNER
    return Reach.OPEN


def _carried(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 one stands for, by the forms that are known."""
    number = int(address)
    if any(address in network for network in (MAPPED, NAT64, TRANSLATED, COMPATIBLE, NAT64_LOCAL)):
        yield IPv4Address(number & _LOW)
    if address in NAT64_LOCAL:
        yield from (IPv4Address(_after(number, prefix)) for prefix in (48, 56, 64))
    if address in SIX_TO_FOUR:
        yield IPv4Address(number >> 80 & _LOW)
    if address in TEREDO:  # RFC 4380 section 4: the server's, and the client's with all bits turned
        yield IPv4Address(number >> 64 & _LOW)
        yield IPv4Address(~number & _LOW)


def _after(number: int, prefix: int) -> int:
    """The 32 bits after the prefix, leaving out bits 64 to 71 (RFC 6052 section 2.2)."""
    return (number >> 64 << 56 | number & (1 << 56) - 1) >> 88 - prefix & _LOW
