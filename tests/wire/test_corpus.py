"""What was found in the field, made, or left of fuzzing, each with what it has to become.

``corpus/FORMAT/NAME.FORMAT`` is a body and ``NAME.json`` what comes of it: ``readings`` as [place, code, labels,
reading_at in µs or null, value (as text where it is no number)], ``rejected`` as [place, code], and ``skipped``; or the
``error`` of the whole.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from pathlib import Path

import pytest

from meterite.model.columns import NO_TIME
from meterite.model.errors import MeteriteError
from meterite.wire.exposition import decode_exposition, is_openmetrics
from meterite.wire.graphite import decode_graphite, decode_pickles
from meterite.wire.line_protocol import decode_line_protocol
from meterite.wire.names import Names
from meterite.wire.otlp import decode_otlp
from meterite.wire.otlp_json import decode_otlp_json
from meterite.wire.readings_csv import decode_csv
from meterite.wire.remote_write import MESSAGE_1, MESSAGE_2, decode_remote_write

CORPUS = Path(__file__).parent / "corpus"


def exposition(body, *, readings_max):
    """The format that it is by its end."""
    return decode_exposition(body, readings_max=readings_max, openmetrics=is_openmetrics(body))


def one_pickle(body, *, readings_max):
    """By itself."""
    return decode_pickles([body], readings_max=readings_max)


def remote_write(body, *, message, readings_max):
    """Twice, so that the second time its names are known."""
    names = Names()
    with contextlib.suppress(MeteriteError):
        decode_remote_write(body, message=message, names=names, readings_max=readings_max)
    return decode_remote_write(body, message=message, names=names, readings_max=readings_max)


DECODERS = {
    "csv": functools.partial(decode_csv, precision=None),
    "exposition": exposition,
    "graphite": decode_graphite,
    "lp": functools.partial(decode_line_protocol, precision=None),
    "otlp": decode_otlp,
    "otlpjson": decode_otlp_json,
    "pickle": one_pickle,
    "rw1": lambda body, readings_max: remote_write(body, message=MESSAGE_1, readings_max=readings_max),
    "rw2": lambda body, readings_max: remote_write(body, message=MESSAGE_2, readings_max=readings_max),
}
BODIES = sorted(path for path in CORPUS.glob("*/*") if path.suffix[1:] == path.parent.name)


def outcome(decode, body):
    """As the file beside it says it."""
    try:
        decoded = decode(body, readings_max=1000)
    except MeteriteError as exc:
        return {"error": exc.code}
    keys = [decoded.keys[n] for n in decoded.key_index.tolist()]
    times = [None if at == NO_TIME else at for at in decoded.at_us.tolist()]
    values = [value if math.isfinite(value) else str(value) for value in decoded.values.tolist()]
    rows = zip(decoded.row.tolist(), keys, times, values, strict=True)
    found = {"readings": [[row, key.code, dict(key.labels), at, value] for row, key, at, value in rows]}
    if decoded.rejected:
        found["rejected"] = [[rejected.index, rejected.code] for rejected in decoded.rejected]
    if decoded.skipped:
        found["skipped"] = decoded.skipped
    return found


@pytest.mark.parametrize("path", BODIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_corpus(path):
    """Each body becomes what stands beside it."""
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert outcome(DECODERS[path.parent.name], path.read_bytes()) == expected


def test_the_corpus_is_whole():
    """Each format has bodies, and each expectation has one."""
    assert {path.parent.name for path in BODIES} == set(DECODERS)
    expected = {path.with_suffix("") for path in CORPUS.glob("*/*.json")}
    assert expected == {path.with_suffix("") for path in BODIES}
