"""Bodies of line protocol without end, through the compiled decoder and the plain one.

    fuzz_lines.py LIBRARY SECONDS SEED

They are the corpus and what is made of it by changing bytes, taking some away, and putting others' in. What the two
decoders don't say alike is printed, and the exit status 1. Run by ``test_compiled.py`` with a library that was built
with AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from pathlib import Path

import numpy as np

NAME = "meterite.wire._line_protocol"
CORPUS = Path(__file__).parent / "corpus" / "lp"
PIECES = (
    b"\n", b"\r\n", b" ", b",", b"=", b'"', b"\\", b"\\ ", b"#", b"-", b".", b"e", b"i", b"u", b"t", b"n", b"0", b"9",
    b"1.5", b"-2e-3", b"1e308", b"1e400", b"9" * 19, b"9" * 40, b"0." + b"0" * 30 + b"1", b"true", b"FALSE", b"nan",
    b"value=1", b",a=1", b"m v=1 1000\n", b'm,a=b v=1,t="x\ny",w=2u 5t\n', b"\x00", b"\xff", "é".encode(),
    b"\xef\xbb\xbf",
)  # fmt: skip
READINGS_MAX = 1000
UNITS = ("ns", "us", "ms", "s", "m", "h", "auto")


def load(library):
    """The extension of this file, in the place of the one that is installed."""
    spec = importlib.util.spec_from_file_location(NAME, library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = module


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


def said(decode, body, unit):
    from meterite.model.errors import MeteriteError

    try:
        decoded = decode(body, precision=unit, readings_max=READINGS_MAX)
    except MeteriteError as error:
        return error.code
    columns = (decoded.key_index, decoded.at_us, decoded.values, decoded.row)
    assert [column.dtype for column in columns] == [np.uint32, np.int64, np.float64, np.int64]
    listed = [column.tolist() for column in columns]
    return decoded.keys, listed, decoded.rejected, decoded.skipped, decoded.unit, decoded.counted


def main(library, seconds, seed):
    load(library)
    from meterite.wire import compiled, line_protocol

    assert compiled.COMPILED
    random.seed(seed)
    bodies = [path.read_bytes() for path in sorted(CORPUS.glob("*.lp"))] + [b"m,a=1 v=1,w=2 1000\n" * 3]
    small = compiled.Lines(4000)  # which is full now and then
    count = taken = 0
    end = time.monotonic() + float(seconds)
    while count < len(bodies) or time.monotonic() < end:
        body = bodies[count] if count < len(bodies) else changed(random.choice(bodies), bodies)
        unit = random.choice(UNITS)
        plain = said(line_protocol.decode_line_protocol, body, unit)
        assert said(compiled.decode_line_protocol, body, unit) == plain, (unit, body)
        compact = small.decode(body, unit, READINGS_MAX)
        taken += compact is not None
        if compact is not None:
            assert said(lambda *_, compact=compact, **__: compact, body, unit) == plain, (unit, body)
        count += 1
        if len(body) < 4000 and random.random() < 0.02:
            bodies[random.randrange(len(bodies))] = body
    print(f"{count} bodies, {taken} of them taken by the compiled decoder; keeps {compiled.kept()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
