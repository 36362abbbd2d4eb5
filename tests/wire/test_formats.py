"""Media types of ``POST /readings``."""

from __future__ import annotations

import pytest

from meterite.wire.formats import readings_decoder
from meterite.wire.readings_json import decode_json, decode_ndjson


@pytest.mark.parametrize(
    ("content_type", "decoder"),
    [
        ("application/json", decode_json),
        ("application/x-ndjson", decode_ndjson),
        ("Application/X-NDJSON ; charset=utf-8", decode_ndjson),
        ("application/x-www-form-urlencoded", decode_json),
        ("", decode_json),
        (None, decode_json),
    ],
)
def test_json_is_taken_under_any_content_type(content_type, decoder):
    """Only NDJSON must be named."""
    assert readings_decoder(content_type) is decoder
