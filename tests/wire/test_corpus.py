"""What was found in the field, made, or left of fuzzing, each with what it has to become.

``corpus/FORMAT/NAME.FORMAT`` is a body and ``NAME.json`` what comes of it: ``readings`` as [place, code, labels,
reading_at in µs or null, value (as text where it is no number)], of StatsD ``samples`` as [kind, code, labels, value or
text, rate]; ``rejected`` as [place, code], and ``skipped``; or the ``error`` of the whole.
"""

from __future__ import annotations

import json
import math

import pytest

from meterite.model.columns import NO_TIME
from meterite.model.errors import MeteriteError
from wire.every_decoder import CORPUS, DECODERS, bodies_of

BODIES = [path for form in DECODERS for path in bodies_of(form)]


def outcome(decode, body):
    """As the file beside it says it."""
    try:
        decoded = decode(body, readings_max=1000)
    except MeteriteError as exc:
        return {"error": exc.code}
    found = {"readings": readings(decoded)} if hasattr(decoded, "keys") else {"samples": samples(decoded)}
    if decoded.rejected:
        found["rejected"] = [[rejected.index, rejected.code] for rejected in decoded.rejected]
    if decoded.skipped:
        found["skipped"] = decoded.skipped
    return found


def readings(decoded):
    """Of which each series has one."""
    assert set(decoded.key_index.tolist()) == set(range(len(decoded.keys)))
    keys = [decoded.keys[n] for n in decoded.key_index.tolist()]
    times = [None if at == NO_TIME else at for at in decoded.at_us.tolist()]
    values = [value if math.isfinite(value) else str(value) for value in decoded.values.tolist()]
    places = range(len(decoded)) if decoded.row is None else decoded.row.tolist()
    rows = zip(places, keys, times, values, strict=True)
    return [[row, key.code, dict(key.labels), at, value] for row, key, at, value in rows]


def samples(decoded):
    return [
        [
            each.kind,
            each.key.code,
            dict(each.key.labels),
            each.text if each.kind == "set" else each.value,
            each.rate,
        ]
        for each in decoded.samples
    ]


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
