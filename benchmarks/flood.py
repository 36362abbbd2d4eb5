"""One org's request brings several 100,000 new series: how long another org waits meanwhile.

The other org sends, each on a connection of its own and every 100 ms, a line that makes a series, one that makes a
metric, and a reading of a series that is there. Their answers are timed from the moment the request is sent, those of
503, which are counted, too.

Then very many orgs bring new series all at once, more than the bound on waiting has room for: who is told to come again
does so a second later, and all requests are counted until everybody's series are there.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.many_series import DOORS
from benchmarks.measure import Row, median
from benchmarks.servers import ORG, TOKEN, meterite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OTHER_TOKEN: Final = "benchmark-token-2"
EVERY_S: Final = 0.1
AT_S: Final = 1_700_000_000
BAR_MS: Final = 1000.0
ORGS: Final = 300
ORG_SERIES: Final = 4100
"""Two steps' and a little more."""
LINES: Final[Mapping[str, Callable[[int], str]]] = {
    "a new series": lambda n: f"other,n={n} value=1 {AT_S}",
    "a new metric": lambda n: f"other_{n} value=1 {AT_S}",
    "a reading": lambda n: f"other value={n} {AT_S}",
}


def run(*, full: bool) -> list[Row]:
    series = 400_000 if full else 300_000
    waits: dict[str, list[tuple[float, bool]]] = {what: [] for what in LINES}
    tokens = {TOKEN: ORG, OTHER_TOKEN: "org_02"}
    settings = {"api_tokens": json.dumps(tokens), "body_bytes_max": str(64 << 20)}
    with tempfile.TemporaryDirectory() as name, meterite(Path(name), settings) as server:
        _push(_connected(server.port), "other value=0", OTHER_TOKEN)
        body = DOORS["line protocol"].body(range(series), AT_S)
        answered = threading.Event()
        others = [
            threading.Thread(target=_others, args=(server.port, line, waits[what], answered))
            for what, line in LINES.items()
        ]
        for other in others:
            other.start()
        began = time.monotonic()
        try:
            _push(_connected(server.port), body, TOKEN)
        finally:
            answered.set()
            for other in others:
                other.join(60)
        took_s = time.monotonic() - began
    rows = []
    for what, answers in waits.items():
        waited = [ms for ms, _ in answers]
        note = f"of {len(answers)}; the request with {series:,} series was answered after {took_s:.0f} s"
        refused = sum(not taken for _, taken in answers)
        rows += [
            Row(f"{what} while another org makes {series:,}: median", median(waited), "ms", note=note),
            Row("… longest", max(waited), "ms", BAR_MS, note=f"{refused} refused"),
        ]
    return rows + _at_once()


def _at_once() -> list[Row]:
    tokens = {f"benchmark-{n}": f"org_{n}" for n in range(ORGS)}
    body = "\n".join(f"met,n={n} value=1 {AT_S}" for n in range(ORG_SERIES))
    sent: list[int] = []

    def until_taken(token: str) -> None:
        requests = 1
        while True:
            with contextlib.closing(_connected(server.port)) as connection:
                if _push(connection, body, token):
                    break
            time.sleep(1)
            requests += 1
        sent.append(requests)

    with (
        tempfile.TemporaryDirectory() as name,
        meterite(Path(name), {"api_tokens": json.dumps(tokens)}) as server,
    ):
        threads = [threading.Thread(target=until_taken, args=(token,)) for token in tokens]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - began
    note = f"requests until all are taken: {sum(sent)}, of one org {max(sent)} at most"
    return [Row(f"{ORGS} orgs make {ORG_SERIES:,} series each at once", took_s, "s", note=note)]


def _connected(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=300)


def _others(
    port: int, line: Callable[[int], str], answers: list[tuple[float, bool]], answered: threading.Event
) -> None:
    n = 0
    with contextlib.closing(_connected(port)) as connection:
        while not answered.wait(EVERY_S):
            began = time.monotonic()
            taken = _push(connection, line(n), OTHER_TOKEN)
            answers.append(((time.monotonic() - began) * 1000, taken))
            n += 1


def _push(connection: http.client.HTTPConnection, body: str | bytes, token: str) -> bool:
    """Whether it was taken, or refused for now."""
    connection.request("POST", "/write?precision=s", body, {"x-auth-token": token})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status not in {204, 503}:
        raise RuntimeError(f"{answer.status} {text[:300]!r}")
    return answer.status == 204
