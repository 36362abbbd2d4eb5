"""Media types of ``POST /readings``."""

from __future__ import annotations

import pytest

from meterite.model.columns import SeriesKey
from meterite.model.errors import InvalidInputError
from meterite.wire.formats import readings_decoder
from meterite.wire.readings_csv import decode_csv
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
        ("text/csv; header=present", decode_csv),
    ],
)
def test_json_is_taken_under_any_content_type(content_type, decoder):
    """Only NDJSON and CSV must be named."""
    assert readings_decoder(content_type) is decoder


def test_a_metric_for_all_readings_is_csvs():
    """JSON has it in each reading, so naming it once more is refused."""
    decoded = readings_decoder("text/csv", "M1")(b"reading\n1\n", precision=None, readings_max=1)
    assert decoded.keys == [SeriesKey("M1")]
    with pytest.raises(InvalidInputError, match="is for CSV"):
        readings_decoder(None, "M1")
