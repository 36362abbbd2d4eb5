"""The one way from a body to the store."""

from __future__ import annotations

import threading

import anyio
import pytest

from meterite.api import readings
from meterite.api.ingest import READ_AT_ONCE_BYTES_MAX
from meterite.wire.formats import readings_decoder

ROW = b'[{"metric": "M", "reading": 1, "reading_at": "2026-01-01T00:00:00Z"}]'
LARGE = ROW.ljust(READ_AT_ONCE_BYTES_MAX + 1)
TOKEN = {"x-auth-token": "token-one"}
PATIENCE_S = 20


@pytest.fixture
def held(monkeypatch):
    """Decoding a large body waits until it is let go; how often it was begun is counted."""
    begun, let_go = threading.Semaphore(0), threading.Event()

    def decoder(content_type, metric):
        plain = readings_decoder(content_type, metric)

        def decode(body, **options):
            if len(body) > READ_AT_ONCE_BYTES_MAX:
                begun.release()
                assert let_go.wait(PATIENCE_S), "others wait for a body that is being decoded"
            return plain(body, **options)

        return decode

    monkeypatch.setattr(readings, "readings_decoder", decoder)
    return begun, let_go


def test_nobody_waits_for_a_large_body(client, held):
    """While one is being decoded, and another waits for that, small requests are answered; then they are, too."""
    begun, let_go = held
    answers = []

    async def send(body):
        answers.append(await client.http.post("/readings", content=body, headers=TOKEN))

    async def small():
        assert (await client.http.get("/health")).status_code == 200
        await send(ROW)
        pushed = await client.http.post("/metric/M", json={"reading": 2}, headers=TOKEN)
        assert pushed.status_code == 200

    async def all_of_it():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, LARGE)
            tasks.start_soon(send, LARGE)
            assert await anyio.to_thread.run_sync(lambda: begun.acquire(timeout=PATIENCE_S))
            await small()
            assert len(answers) == 1
            assert not begun.acquire(blocking=False)
            let_go.set()

    client._portal.call(all_of_it)
    assert [(answer.status_code, answer.json()["accepted"]) for answer in answers] == [(200, 1)] * 3


@pytest.mark.parametrize("path", ["/readings", "/write", "/v1/metrics", "/collectd", "/api/v1/import"])
def test_what_a_large_body_has_wrong(client, path):
    """Is told as that of a small one."""
    small, large = (client.post(path, content=body) for body in (b"{,", b"{,".ljust(len(LARGE), b"x")))
    assert small.status_code == large.status_code
    assert small.headers["content-type"] == large.headers["content-type"]
    assert 400 <= small.status_code < 500
