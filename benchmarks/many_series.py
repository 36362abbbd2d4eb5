"""1,000, 10,000 and 100,000 series: what a reading costs once names are known, and what the server's memory comes to.

Each request has 1,000 readings of as many series, in blocks that follow each other, as agents and scrapes send them.
The first round, in which every series is new, is told apart; then come rounds until 500,000 readings were sent. The
servers are new for each door and number of series, and take their turns by number of series. Compaction runs beside.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cramjam import snappy

from benchmarks.load import request, send
from benchmarks.measure import Row, median, peak_resident_bytes
from benchmarks.remote_write import CODING, field, sample
from benchmarks.servers import TOKEN, meterite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EACH: Final = 1000
METRICS: Final = 10
SERIES: Final = (1000, 10_000, 100_000)
CONNECTIONS: Final = 4
STEP_S: Final = 10
BAR: Final = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """µs of the server a series at first sight, µs a reading once it is known, and the most memory it held."""

    first_us: float
    known_us: float
    peak: int


def run(*, full: bool) -> list[Row]:
    readings, turns = (2_000_000, 3) if full else (500_000, 1)
    rows: list[Row] = []
    for what, door in DOORS.items():
        found: dict[int, list[Measured]] = {count: [] for count in SERIES}
        for _ in range(turns):
            for count, figures in found.items():
                figures.append(_measure(door, count, max(2, readings // count)))
        least = median([one.known_us for one in found[SERIES[0]]])
        for count, figures in found.items():
            known = median([one.known_us for one in figures])
            first = median([one.first_us for one in figures])
            note = (
                f"{known:.2f} µs a reading; first sight {first:.0f} µs a series; "
                f"{median([one.peak for one in figures]) / 1e6:.0f} MB at most"
            )
            bar = None if count == SERIES[0] else BAR
            rows.append(
                Row(f"{what}, {count:,} series: CPU a reading ÷ 1,000's", known / least, "×", bar, note=note)
            )
    return rows


def _measure(door: Door, count: int, rounds: int) -> Measured:
    first_s = (int(time.time()) // 3600 - 24 * 7) * 3600
    made = [
        [door.request(range(n, n + EACH), first_s + turn * STEP_S) for n in range(0, count, EACH)]
        for turn in range(rounds + 1)
    ]
    with tempfile.TemporaryDirectory() as name, meterite(Path(name)) as server:
        before = server.cpu_s()
        send(server.port, made[0], connections=1, total=len(made[0]))
        seen = server.cpu_s()
        known = [one for turn in made[1:] for one in turn]
        send(server.port, known, connections=CONNECTIONS, total=len(known))
        used = server.cpu_s() - seen
        return Measured(
            (seen - before) / count * 1e6, used / (count * rounds) * 1e6, peak_resident_bytes(server.pid)
        )


@dataclass(frozen=True, slots=True)
class Door:
    """Where readings of some series at one time go, and as what."""

    path: str
    media: str
    body: Callable[[Sequence[int], int], bytes]

    def request(self, series: Sequence[int], at_s: int) -> bytes:
        return request("POST", self.path, self.body(series, at_s), TOKEN, self.media)


def _code(n: int) -> str:
    return f"node_cpu_seconds_total_{n % METRICS}"


def _value(n: int, at_s: int) -> float:
    return round(20 + n % 97 * 0.25 + at_s % 1000 * 0.01, 2)


def _lines(series: Sequence[int], at_s: int) -> bytes:
    return "\n".join(
        f"{_code(n)},host=host-{n:06},rack=r{n % 7},region=eu-west value={_value(n, at_s)} {at_s}"
        for n in series
    ).encode()


def _exposition(series: Sequence[int], at_s: int) -> bytes:
    return "\n".join(
        f'{_code(n)}{{instance="host-{n:06}:9100",job="node",mode="user"}} {_value(n, at_s)} {at_s}000'
        for n in series
    ).encode()


def _remote_write(series: Sequence[int], at_s: int) -> bytes:
    return bytes(snappy.compress_raw(b"".join(field(1, _one(n, at_s)) for n in series)))


def _one(n: int, at_s: int) -> bytes:
    labels = {"__name__": _code(n), "instance": f"host-{n:06}:9100", "job": "node", "mode": "user"}
    named = [field(1, field(1, name.encode()) + field(2, value.encode())) for name, value in labels.items()]
    return b"".join([*named, field(2, sample(_value(n, at_s), at_s * 1000))])


def _json(series: Sequence[int], at_s: int) -> bytes:
    return json.dumps(
        [
            {
                "metric": _code(n),
                "labels": {"host": f"host-{n:06}", "rack": f"r{n % 7}", "region": "eu-west"},
                "reading": _value(n, at_s),
                "reading_at": at_s,
            }
            for n in series
        ]
    ).encode()


DOORS: Final = {
    "line protocol": Door("/write?precision=s", "text/plain", _lines),
    "remote write": Door("/api/v1/write", CODING, _remote_write),
    "text exposition": Door("/api/v1/import/prometheus", "text/plain", _exposition),
    "`POST /readings`, rows of JSON": Door("/readings?precision=s", "application/json", _json),
}
