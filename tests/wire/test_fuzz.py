"""Every decoder, with bodies of the corpus and what is made of them: they give columns or an error of ours, within
bounds of time and of memory that go by the body's length.

What fails is told in as few bytes as fail; it belongs into the corpus.
"""

from __future__ import annotations

import functools
import os
import random
import time
import tracemalloc

import numpy as np
import pytest

from meterite.model.errors import MeteriteError
from meterite.wire.statsd import Samples
from wire.changes import changed, repeated, smallest
from wire.every_decoder import DECODERS, bodies_of

READINGS_MAX = 1000
SECONDS = (0.05, 5e-6)
"""Of CPU: for any body, which a collection of garbage may fall into, and for each of its bytes; 1.3e-6 at most was
measured in 100 KB."""
MEMORY_BYTES = (2_000_000, 200)
"""For any body, and for each of its bytes; 95 of a byte at most was measured."""
REPEATED = 0.05
"""Of all bodies so many have a piece that is repeated."""
COUNTED = 0.01
"""Of so many the memory is counted, which makes a decoder some times slower, and leaves a KB behind each time."""
KEPT_BYTES = 4000
REASON_CHARACTERS_MAX = 1000


def check_sound(decode, body):
    """Columns of one length, of their types and with distinct keys, or an error of ours. Answers what came."""
    try:
        decoded = decode(body, readings_max=READINGS_MAX)
    except MeteriteError as error:
        return error.code
    assert decoded.skipped >= 0
    assert all(
        rejected.code and len(rejected.reason) < REASON_CHARACTERS_MAX for rejected in decoded.rejected
    )
    if isinstance(decoded, Samples):
        taken = decoded.samples
        assert np.isfinite([(sample.value, sample.rate) for sample in taken]).all()
    else:
        taken = decoded
        check_columns(decoded)
    codes = frozenset(rejected.code for rejected in decoded.rejected)
    return codes, min(len(taken), 3), min(decoded.skipped, 2)


def check_columns(decoded):
    columns = [decoded.key_index, decoded.at_us, decoded.values]
    columns += [] if decoded.row is None else [decoded.row]
    assert [column.dtype for column in columns] == [np.uint32, np.int64, np.float64, np.int64][: len(columns)]
    assert {column.shape for column in columns} == {(len(decoded),)}
    assert len(decoded) + len(decoded.rejected) <= READINGS_MAX
    assert len(set(decoded.keys)) == len(decoded.keys)
    assert set(decoded.key_index.tolist()) == set(range(len(decoded.keys)))


def timed(decode, body):
    begun = time.thread_time()
    said = check_sound(decode, body)
    return said, time.thread_time() - begun


def check_time(decode, body):
    """In the best of some, since the machine has other work."""
    bound = SECONDS[0] + SECONDS[1] * len(body)
    said, taken = timed(decode, body)
    if taken > bound:
        taken = min(timed(decode, body)[1] for _ in range(3))
        assert taken < bound, f"{taken:.3f} s of CPU for {len(body)} bytes"
    return said


def check_memory(decode, body):
    tracemalloc.start()
    try:
        said = check_sound(decode, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES[0] + MEMORY_BYTES[1] * len(body), f"{peak} bytes for {len(body)}"
    return said


def failure(check, body):
    """What it fails with."""
    try:
        check(body)
    except Exception as error:  # noqa: BLE001 -- any is a finding
        return error
    return None


def tell(check, body, error):
    """The same failure with as few bytes as possible."""
    kind = type(error)
    least = smallest(body, lambda shorter: type(failure(check, shorter)) is kind)
    pytest.fail(f"{least[:2000]!r} ({len(least)} bytes): {failure(check, least)!r}")


def fuzz(form, *, seconds, seed):
    """How many bodies were tried. Those that are answered as none was before are changed further."""
    random.seed(seed)
    decode = DECODERS[form]
    bodies = [path.read_bytes() for path in bodies_of(form)]
    first, heard = list(bodies), set()
    count = 0
    end = time.process_time() + seconds
    while count < len(first) or time.process_time() < end:
        body = first[count] if count < len(first) else changed(random.choice(bodies), bodies)
        if random.random() < REPEATED:
            body = repeated(body)
        check = functools.partial(check_memory if random.random() < COUNTED else check_time, decode)
        try:
            said = check(body)
        except Exception as error:  # noqa: BLE001 -- any is a finding
            tell(check, body, error)
        count += 1
        if said not in heard and len(body) < KEPT_BYTES:
            heard.add(said)
            bodies.append(body)
    return count


FORMATS = pytest.mark.parametrize("form", sorted(DECODERS))


@FORMATS
def test_any_body(form):
    """For about a second, the same bodies each time."""
    assert fuzz(form, seconds=1, seed=form) >= len(bodies_of(form))


@pytest.mark.soak
@pytest.mark.timeout(4200)
@FORMATS
def test_any_body_for_long(form):
    """An hour for all formats, and never the same bodies."""
    assert fuzz(form, seconds=3600 / len(DECODERS), seed=os.getpid()) >= len(bodies_of(form))


def test_smallest():
    """Finds what a failure needs."""
    body = b"a" * 1000 + b"<" + b"b" * 77 + b">c"
    assert smallest(body, lambda body: b">" in body.partition(b"<")[2]) == b"<>"
