"""What a decoder that keeps names from request to request owes, whatever it decodes."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np

from meterite.model.errors import MeteriteError
from meterite.wire.names import Names


def told(decode, body, names):
    """All that comes of a body, and the keys."""
    try:
        decoded = decode(body, names=names)
    except MeteriteError as error:
        return (type(error), error.code, error.message), []
    keys = [decoded.keys[n] for n in decoded.key_index.tolist()]
    assert len(set(decoded.keys)) == len(decoded.keys)
    assert set(decoded.key_index.tolist()) == set(range(len(decoded.keys)))
    return (
        [astuple(key) for key in keys],
        decoded.at_us.tolist(),
        decoded.values.view(np.uint64).tolist(),
        decoded.row.tolist(),
        decoded.rejected,
        decoded.skipped,
        decoded.described,
        decoded.counted,
        decoded.unit,
    ), decoded.keys


def check_known_names(requests):
    """Each request, a decoder and a body, says the same with and without names that are known, and with few of them.

    Equal keys are one object in all of them.
    """
    kept, few = Names(), Names(bytes_max=1500)
    seen = {}
    for decode, body in [*requests, *requests]:
        expected, _ = told(decode, body, None)
        found, keys = told(decode, body, kept)
        assert found == expected
        assert told(decode, body, few)[0] == expected
        for key in keys:
            assert seen.setdefault(key, key) is key
