"""What listeners' tests share: a setting, and a recorder that notes what it was given."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

from meterite.listener_setting import ListenerSetting
from meterite.model.errors import UnavailableError
from meterite.recording.recorder import Receipt


def setting(kind="graphite", port=1, allow=("127.0.0.0/8",), flush_s=0.01, org="org_01"):
    return ListenerSetting(kind, "127.0.0.1", port, org, tuple(map(ip_network, allow)), flush_s)


class Recorded:
    """Answers a receipt that rejects what the decoder rejected; ``refusals`` are raised first, one a call."""

    def __init__(self, *refusals):
        self.refusals = list(refusals)
        self.calls = []
        self._called = asyncio.Event()

    async def __call__(self, org, decoded, *, partial):
        assert partial
        self._called.set()
        if self.refusals:
            raise self.refusals.pop(0)
        self.calls.append((org, decoded))
        return Receipt(len(decoded), decoded.rejected, 0, counted=decoded.counted)

    async def until(self, condition):
        """Asked after each call."""
        async with asyncio.timeout(10):
            while not condition():
                self._called.clear()
                await self._called.wait()

    @property
    def values(self):
        return [value for _, decoded in self.calls for value in decoded.values.tolist()]


def not_now():
    return UnavailableError("queue-full", "Not now.")
