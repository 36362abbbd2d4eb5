"""The body within its limits."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib

import cramjam
import pytest

from meterite.api.body import CODING, BodyLimit, ClientGone, read_body
from meterite.api.room import Room, Share
from meterite.api.unpack import BodyLimits, unpack
from meterite.model.errors import MalformedError, TooLargeError, UnavailableError, UnsupportedMediaError

LIMITS = BodyLimits(body_bytes_max=100_000, unpacked_bytes_max=4_000_000, ratio_max=200)
NOISE = random.Random(1).randbytes(50_000)
MIXED = (NOISE[:20_000] + b"\0" * 400_000) * 4


def read(body: bytes, *, headers=(), piece: int = 7001, limits: BodyLimits = LIMITS, end=True) -> bytes:
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)] or [b""]
    messages = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]
    messages.append({"type": "http.request", "body": b""} if end else {"type": "http.disconnect"})

    async def receive():
        return messages.pop(0)

    return asyncio.run(read_body({"headers": list(headers)}, receive, limits, Share(Room(1))))


def packed(coding: bytes):
    return [(b"content-encoding", coding)]


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize("piece", [1, 2, 997, 65_536, 10_000_000])
@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        (b"gzip", gzip.compress),
        (b"GZIP", gzip.compress),
        (b"x-gzip", gzip.compress),
        (b"deflate", zlib.compress),
        (b"deflate", raw_deflate),
        (b"zstd", cramjam.zstd.compress),
        (b"br", cramjam.brotli.compress),
        (b"snappy", cramjam.snappy.compress),
        (b"snappy", cramjam.snappy.compress_raw),
        (b"identity", bytes),
        (b"identity, gzip", gzip.compress),
    ],
)
def test_every_coding_in_any_pieces(coding, pack, piece):
    """What was packed comes out, however it was cut on the way."""
    for body in (b"[1, 2, 3]", NOISE[: 5000 if piece < 10 else 50_000]):
        assert read(bytes(pack(body)), headers=packed(coding), piece=piece) == body


def test_a_large_body_unpacks_whole():
    """More than one bounded step of output, from few bytes of input, is complete."""
    for pack, coding in (
        (gzip.compress, b"gzip"),
        (zlib.compress, b"deflate"),
        (cramjam.zstd.compress, b"zstd"),
        (cramjam.brotli.compress, b"br"),
    ):
        assert read(bytes(pack(MIXED)), headers=packed(coding)) == MIXED


def test_several_members_are_one_body():
    """RFC 1952: gzip files one behind the other."""
    body = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two")
    assert read(body, headers=packed(b"gzip"), piece=5) == b"onetwo"


@pytest.mark.parametrize("coding", [b"lz4", b"gzip, gzip", b"nonsense"])
def test_other_codings_are_refused(coding):
    """415, with nothing read."""
    with pytest.raises(UnsupportedMediaError):
        read(b"x", headers=packed(coding))


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", b"no gzip at all"),
        (b"gzip", gzip.compress(NOISE)[:-5]),
        (b"gzip", gzip.compress(NOISE)[:-8] + b"\0" * 8),
        (b"gzip", gzip.compress(NOISE) + b"more"),
        (b"gzip", gzip.compress(b"") * 4097),
        (b"deflate", b"\x78"),
        (b"deflate", zlib.compress(NOISE)[:-1]),
        (b"deflate", zlib.compress(NOISE) + b"more"),
        (b"deflate", b"\xff\xff\xff"),
        (b"zstd", b"\xff\xff\xff"),
        (b"zstd", bytes(cramjam.zstd.compress(NOISE))[:-1]),
        (b"zstd", bytes(cramjam.zstd.compress(NOISE)) + b"more"),
        (b"br", bytes(cramjam.brotli.compress(NOISE))[:-1]),
        (b"snappy", bytes(cramjam.snappy.compress_raw(NOISE))[:-1]),
        (b"snappy", bytes(cramjam.snappy.compress_raw(NOISE)) + b"more"),
        (b"snappy", bytes(cramjam.snappy.compress(NOISE))[:-1]),
        (b"snappy", bytes(cramjam.snappy.compress(NOISE)) + b"more"),
    ],
)
def test_what_does_not_unpack(coding, body):
    """Garbage, a stream cut short, and bytes behind the end: 400."""
    limits = BodyLimits(body_bytes_max=1_000_000)
    with pytest.raises(MalformedError):
        read(body, headers=packed(coding), limits=limits)


def test_a_length_over_the_limit_is_refused_unread():
    """413 before a byte is read."""

    async def receive():
        raise AssertionError("read")

    scope = {"headers": [(b"content-length", b"100001")]}
    with pytest.raises(TooLargeError) as caught:
        asyncio.run(read_body(scope, receive, LIMITS, Share(Room(1))))
    assert caught.value.code == "body-too-large"


def test_a_body_without_length_is_counted():
    """413 as soon as the limit is passed; exactly the limit is fine."""
    assert len(read(b"x" * 100_000)) == 100_000
    with pytest.raises(TooLargeError):
        read(b"x" * 100_001)


@pytest.mark.parametrize(
    ("coding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)], ids=["gzip", "deflate"]
)
def test_bombs(coding, pack):
    """Too large unpacked, and too large for what was sent, are told apart."""
    with pytest.raises(TooLargeError) as caught:
        read(pack(b"\0" * 3_000_000), headers=packed(coding))
    assert caught.value.code == "body-ratio"
    assert len(read(pack(b"\0" * 1_000_000), headers=packed(coding))) == 1_000_000
    with pytest.raises(TooLargeError) as caught:
        read(pack(MIXED * 3), headers=packed(coding), limits=BodyLimits(unpacked_bytes_max=2_000_000))
    assert caught.value.code == "body-too-large-unpacked"


@pytest.mark.parametrize(
    ("coding", "pack"), [(b"zstd", cramjam.zstd.compress), (b"br", cramjam.brotli.compress)]
)
def test_bombs_of_codings_unpacked_at_once(coding, pack):
    """The same, and never into more memory than is allowed."""
    assert len(unpack(coding, bytes(pack(b"\0" * 1_000_000)), LIMITS)) == 1_000_000
    bomb = bytes(pack(b"\0" * 3_000_000))
    assert len(bomb) * 200 < 1_000_000
    with pytest.raises(TooLargeError) as caught:
        unpack(coding, bomb, LIMITS)
    assert caught.value.code == "body-ratio"
    with pytest.raises(TooLargeError) as caught:
        unpack(coding, bytes(pack(MIXED * 3)), BodyLimits(unpacked_bytes_max=2_000_000))
    assert caught.value.code == "body-too-large-unpacked"


def test_snappy_says_its_size_and_is_not_believed():
    """A block that announces more than is allowed is refused before anything is made of it."""
    with pytest.raises(TooLargeError) as caught:
        unpack(b"snappy", b"\xff\xff\xff\xff\x0f" + b"x" * 30_000, LIMITS)
    assert caught.value.code == "body-too-large-unpacked"
    with pytest.raises(TooLargeError) as caught:
        unpack(b"snappy", bytes(cramjam.snappy.compress(MIXED * 3)), BodyLimits(unpacked_bytes_max=2_000_000))
    assert caught.value.code == "body-too-large-unpacked"


@pytest.mark.parametrize("coding", [None, b"gzip", b"zstd"])
def test_bodies_have_to_fit_together(coding):
    """One alone always does, and gives its room back, whatever became of it; no room: told before more is read."""
    pack = {None: bytes, b"gzip": gzip.compress, b"zstd": cramjam.zstd.compress}[coding]
    body, room = pack(NOISE), Room(60_000)
    messages = [{"type": "http.request", "body": bytes(body)}] * 2
    headers = [] if coding is None else packed(coding)

    async def receive():
        return messages.pop()

    async def taken():
        with Share(room) as share:
            await read_body({"headers": headers}, receive, LIMITS, share)
            assert room.held == len(NOISE)
            with pytest.raises(UnavailableError), Share(room) as another:
                await read_body({"headers": headers}, receive, LIMITS, another)
            messages.append({"type": "http.request", "body": b"", "more_body": True})
            with pytest.raises(UnavailableError), Share(room) as another:
                await read_body({"headers": [(b"content-length", b"10001")]}, receive, LIMITS, another)
            assert room.held == len(NOISE)

    asyncio.run(taken())
    assert (messages, room.held) == ([], 0)


def test_a_client_that_leaves():
    """Half a body is no body."""
    with pytest.raises(ClientGone):
        read(b"half", end=False)


def test_the_middleware_hands_on_a_plain_body():
    """The app sees the unpacked bytes and their length, and no coding."""
    seen = {}

    async def app(scope, receive, send):
        seen.update(headers=scope["headers"], message=await receive())

    async def receive():
        return {"type": "http.request", "body": gzip.compress(b"[1]")}

    scope = {"type": "http", "method": "POST", "headers": [*packed(b"gzip"), (b"content-length", b"23")]}
    asyncio.run(BodyLimit(app, LIMITS, Room(1))(scope, receive, None))
    assert seen["headers"] == [(b"content-length", b"3")]
    assert scope[CODING] == b"gzip"
    assert seen["message"] == {"type": "http.request", "body": b"[1]", "more_body": False}
