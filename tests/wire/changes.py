"""Bodies other than they were, for fuzzing: with bytes changed, taken away, put in, cut off; and repeated."""

from __future__ import annotations

import random

PIECES = (
    b"\n", b"\r\n", b" ", b",", b"=", b'"', b"\\", b"\\ ", b"#", b"-", b".", b"e", b"i", b"u", b"t", b"n", b"0", b"9",
    b"1.5", b"-2e-3", b"1e308", b"1e400", b"9" * 19, b"9" * 40, b"0." + b"0" * 30 + b"1", b"true", b"FALSE", b"nan",
    b"value=1", b",a=1", b"m v=1 1000\n", b'm,a=b v=1,t="x\ny",w=2u 5t\n', b"\x00", b"\xff", "é".encode(),
    b"\xef\xbb\xbf", b"\x0a", b"\x12", b"\x10\x09", b"\x80\x80\x01", b"\x12\x07\x10\x80\x80\x80\x80\x80\x34",
    b"\x0a\x0d\x0a\x0b\x0a\x08__name__\x12\x01m",
    b"{", b"}", b"[", b"]", b":", b"|", b";", b"null", b"\t", b"\x0b", b"\xc2\xa0", b"'", b"\\u0000", b"\\ud800",
    b'{"a":', b"[[", b'"":"",', b"Infinity", b"-NaN", b"2026-01-31T12:00:00Z", b"\xe2\x80\xa8", b"@0.1", b"__name__",
)  # fmt: skip
REPEATED_BYTES_MAX = 100_000
TRIES_MAX = 2000


def changed(body, bodies):
    """The body with some bytes other than they were."""
    body = bytearray(body)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at = random.randrange(len(body) + 1)
        match random.randrange(5):
            case 0:
                body[at:at] = random.choice(PIECES)
            case 1:
                del body[at : at + random.choice((1, 1, 2, 5, 40))]
            case 2:
                body[at : at + 1] = bytes([random.randrange(256)])
            case 3:
                other = random.choice(bodies)
                start = random.randrange(len(other) + 1)
                body[at:at] = other[start : start + random.choice((4, 20, 100))]
            case _:
                del body[at:]
    return bytes(body)


def repeated(body):
    """The body with one piece of it so often that what isn't linear in it shows."""
    start = random.randrange(len(body) + 1)
    piece = body[start : start + random.choice((1, 2, 3, 10, 50, 1000))] or b"("
    times = random.choice((300, 3000, REPEATED_BYTES_MAX)) // len(piece) + 1
    return body[:start] + piece * times + body[start:]


def smallest(body, fails):
    """What is left of a body that fails when all is taken away without which it fails, too: longest pieces first."""
    size, tries = len(body), 0
    while size and tries < TRIES_MAX:
        at = 0
        while at < len(body):
            shorter = body[:at] + body[at + size :]
            tries += 1
            if fails(shorter):
                body = shorter
            else:
                at += size
        size //= 2
    return body
