"""Bodies sent as something else: what the refusal says."""

from __future__ import annotations

import pytest

from meterite.model.errors import MeteriteError
from meterite.wire.mistaken import CSV_HINT, FORM_HINT
from meterite.wire.plain import decode_plain
from meterite.wire.push import decode_push
from meterite.wire.readings_json import decode_json

FORM = b'--------x\r\nContent-Disposition: form-data; name="file"\r\n\r\n42\r\n--------x--\r\n'


def refused(decode, body, **options):
    with pytest.raises(MeteriteError) as caught:
        decode(body, **options)
    return caught.value.message


@pytest.mark.parametrize(
    ("body", "is_csv"),
    [
        (b"metric,reading\nM1,1\n", True),
        (b'\xef\xbb\xbf"Reading", "Metric"\r\n1,M1\r\n', True),
        (b"metric,readingM1,1M1,2", True),
        (b"metric,reading_at,reading,labels.host\nM1,,1,a\n", True),
        (b"metric,value\nM1,1\n", False),
        (b'[{"metric": "M1", "reading": 1}', False),
        (b"M1,1\nmetric,reading\n", False),
    ],
)
def test_csv_without_its_type(body, is_csv):
    """Told by its header, also where ``curl -d`` took the line ends out."""
    message = refused(decode_json, body, precision=None, readings_max=9)
    assert message.startswith("The body is not JSON: ")
    assert message.endswith(CSV_HINT) is is_csv


def test_a_form():
    """``curl -F``, wherever JSON or numbers are taken."""
    assert refused(decode_json, FORM, precision=None, readings_max=9).endswith(FORM_HINT)
    assert refused(decode_push, FORM).endswith(FORM_HINT)
    assert refused(decode_plain, FORM, precision=None, readings_max=9, code="M1").endswith(FORM_HINT)
    assert FORM_HINT not in refused(decode_push, b"--")
