"""Bodies without end, through a compiled decoder and the plain one.

    fuzz_compiled.py FORMAT LIBRARY SECONDS SEED

They are the corpus and what is made of it by changing bytes, taking some away, and putting others' in. What the two
decoders don't say alike is printed, and the exit status 1. Run by ``test_compiled.py`` with a library that was built
with AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import functools
import random
import struct
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sanitizers import load
from wire.changes import changed

CORPUS = Path(__file__).parent / "corpus"
MODULES = {"lp": "_line_protocol", "rw1": "_remote_write"}
READINGS_MAX = 1000
UNITS = ("ns", "us", "ms", "s", "m", "h", "auto")


def field(tag, data):
    return (
        bytes([tag, len(data) & 0x7F | 0x80, len(data) >> 7]) + data
        if len(data) > 127
        else bytes([tag, len(data)]) + data
    )


def write():
    """A body of remote write as senders make it."""
    body = b""
    for _ in range(random.randrange(4)):
        labels = {"__name__": random.choice("ab"), random.choice("xyz"): "v" * random.choice((1, 2, 100))}
        series = b"".join(field(10, field(10, k.encode()) + field(18, v.encode())) for k, v in labels.items())
        for _ in range(random.randrange(4)):
            value = random.choice((0.0, 1.5, float("nan"), float("-inf")))
            at = random.choice(
                (b"\x01", b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x80\x34", b"\xff" * 8 + b"\x7f")
            )
            series += field(18, b"\x09" + struct.pack("<d", value) + b"\x10" + at)
        body += field(10, series)
    return body


def said(decode, body):
    from meterite.model.errors import MeteriteError

    try:
        decoded = decode(body)
    except MeteriteError as error:
        return error.code, error.message
    columns = (decoded.key_index, decoded.at_us, decoded.values, decoded.row)
    assert [column.dtype for column in columns] == [np.uint32, np.int64, np.float64, np.int64]
    # A NaN is like another here, and 0 is -0; the tests of remote write compare bits.
    listed = [column.tolist() for column in columns]
    listed[2] = [value + 0.0 if value == value else "nan" for value in listed[2]]  # noqa: PLR0124 -- what a NaN isn't
    return decoded.keys, listed, decoded.rejected, decoded.skipped, decoded.unit, decoded.counted


def main(form, library, seconds, seed):
    load(f"meterite.wire.{MODULES[form]}", library)
    from meterite.wire import compiled, line_protocol, remote_write
    from meterite.wire.names import Names

    assert compiled.COMPILED
    random.seed(seed)
    corpus = [path.read_bytes() for path in sorted((CORPUS / form).glob(f"*.{form}"))]
    bodies = corpus * 2  # the second half is replaced by what became of them
    small = {"lp": compiled.Lines, "rw1": compiled.Writes}[form](4000)  # which is full now and then
    names = Names()
    count = taken = 0
    end = time.monotonic() + float(seconds)
    while count < len(corpus) or time.monotonic() < end:
        body = corpus[count] if count < len(corpus) else changed(random.choice(bodies), bodies)
        if form == "rw1":
            body = write() if random.random() < 0.3 else body
            how = {"message": remote_write.MESSAGE_1, "names": names, "readings_max": READINGS_MAX}
            plain = said(functools.partial(remote_write.decode_remote_write, **how), body)
            whole = said(functools.partial(compiled.decode_remote_write, **how), body)
            compact = small.decode(body, READINGS_MAX)
        else:
            unit = random.choice(UNITS)
            how = {"precision": unit, "readings_max": READINGS_MAX}
            plain = said(functools.partial(line_protocol.decode_line_protocol, **how), body)
            whole = said(functools.partial(compiled.decode_line_protocol, **how), body)
            compact = small.decode(body, unit, READINGS_MAX)
        assert whole == plain, (how, body, whole, plain)
        if compact is not None:
            taken += 1
            assert said(lambda _body, compact=compact: compact, body) == plain, (how, body)
        count += 1
        if len(body) < 4000 and random.random() < 0.02:
            bodies[random.randrange(len(corpus), len(bodies))] = body
    print(f"{count} bodies, {taken} of them taken by the compiled decoder")


if __name__ == "__main__":
    main(*sys.argv[1:])
