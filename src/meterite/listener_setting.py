"""One of the setting ``listeners``: which port, in which format, for whom.

What this file guarantees: a listener that is written down is bound to one org and to addresses that were named; there
is no default for either, since nothing else tells who sends.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from meterite.model.duration import parse_duration
from meterite.model.errors import InvalidInputError, SettingsError
from meterite.model.time import excerpt

KINDS: Final = ("graphite", "graphite-pickle", "statsd", "statsd-tcp")
FIELDS: Final = ("kind", "host", "port", "org", "allow", "flush")
FLUSH_MIN_S: Final = 0.1
FLUSH_MAX_S: Final = 3600.0
_HOST: Final = "127.0.0.1"
_FLUSH: Final = {"statsd": "10s", "statsd-tcp": "10s"}


@dataclass(frozen=True, slots=True)
class ListenerSetting:
    """``flush_s``: how long readings are gathered before they are recorded together."""

    kind: str
    host: str
    port: int
    org: str
    allow: tuple[IPv4Network | IPv6Network, ...]
    flush_s: float

    def allows(self, address: str) -> bool:
        """Whether a peer may send. An IPv4 address within an IPv6 one is judged as itself."""
        try:
            peer = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self.allow if network.version == peer.version)


def parse_listener(found: Any, number: int) -> ListenerSetting:
    """ValueError says what is wrong with it, by its number."""
    if isinstance(found, ListenerSetting):
        return found
    if not isinstance(found, dict) or found.get("kind") not in KINDS:
        raise ValueError(f"number {number} needs a kind: {', '.join(KINDS)}")
    for name in found:
        if name not in FIELDS:
            raise ValueError(
                f"number {number} has a field {excerpt(name)}, which isn't one of {', '.join(FIELDS)}"
            )
    kind, host, port, org = found["kind"], found.get("host", _HOST), found.get("port"), found.get("org")
    if type(port) is not int or not 1 <= port <= 65535:
        raise ValueError(f"number {number} needs a port from 1 to 65535")
    if not isinstance(org, str):
        raise ValueError(f"number {number} needs an org, to which its readings belong")  # noqa: TRY004 - pydantic makes its line of ValueError only
    flush_s = _flush_s(found.get("flush", _FLUSH.get(kind, "1s")), number)
    return ListenerSetting(
        kind, _address(host, number), port, org, _networks(found.get("allow"), number), flush_s
    )


def _address(host: Any, number: int) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        raise ValueError(f"number {number} needs as host an address to listen at, such as 0.0.0.0") from None


def _networks(found: Any, number: int) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        networks = tuple(ip_network(text) for text in found if isinstance(text, str))
    except (TypeError, ValueError):
        networks = ()
    if not networks or isinstance(found, str) or len(networks) < len(found):
        _refuse_host_bits(found, number)
        raise ValueError(
            f'number {number} needs allow: who may send, as a list of networks such as ["10.0.0.0/8"]'
        )
    return networks


def _refuse_host_bits(found: Any, number: int) -> None:
    """ValueError at the first network that is one but for its host bits."""
    for text in found if isinstance(found, list) else ():
        try:
            network = ip_network(text, strict=False) if isinstance(text, str) else None
        except ValueError:
            continue
        address = text.partition("/")[0] if network is not None else ""
        if network is not None and ip_address(address) != network.network_address:
            raise ValueError(
                f"number {number} has in allow {text}, whose host bits are set: write {network}, or {address} alone"
            )


def _flush_s(text: Any, number: int) -> float:
    try:
        flush_s = parse_duration(text, place=()) / 1e6 if isinstance(text, str) else 0.0
    except InvalidInputError:
        flush_s = 0.0
    if not FLUSH_MIN_S <= flush_s <= FLUSH_MAX_S:
        raise ValueError(f"number {number} needs as flush a duration from 100ms to 1h, such as 10s")
    return flush_s


def cant_listen(setting: ListenerSetting, error: OSError) -> SettingsError:
    """What the system says of it."""
    why = os.strerror(error.errno) if error.errno else str(error)
    return SettingsError(
        "listeners",
        f"listeners: {setting.host} port {setting.port} ({setting.kind}) can't be listened at: {why}",
    )
