"""What a receiver's answer means."""

from __future__ import annotations

import pytest

from meterite.events.handler import Refused, Retry
from meterite.events.handlers.replies import RETRY_AFTER_S_MAX, Reply, parse_retry_after, settle

NOW_S = 1_445_412_450.0
"""Wed, 21 Oct 2015 07:27:30 GMT"""


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_2xx_is_delivered(status):
    settle(Reply(status), NOW_S)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 521, 599, 999])
def test_later(status):
    with pytest.raises(Retry, match=str(status)) as caught:
        settle(Reply(status), NOW_S)
    assert caught.value.after_s is None


@pytest.mark.parametrize(
    "status", [300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 410, 413, 422, 451]
)
def test_never(status):
    with pytest.raises(Refused, match=str(status)):
        settle(Reply(status, retry_after="5"), NOW_S)


def test_retry_after_goes_with_it():
    with pytest.raises(Retry, match="503 Service Unavailable") as caught:
        settle(Reply(503, retry_after="17"), NOW_S)
    assert caught.value.after_s == 17


def test_a_receivers_text_is_not_repeated():
    with pytest.raises(Refused) as caught:
        settle(Reply(400, body=b"secret of an inner service"), NOW_S)
    assert caught.value.reason == "answered 400 Bad Request"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("3600", 3600.0),
        ("3601", RETRY_AFTER_S_MAX),
        ("9" * 5000, RETRY_AFTER_S_MAX),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("\x00", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 30.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 30.0),
        ("Wed Oct 21 07:28:00 2015", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", RETRY_AFTER_S_MAX),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 9999999 07:28:00 GMT", None),
        ("Wed, 01 Jan 0001 00:00:00 +1400", 0.0),
    ],
)
def test_retry_after_in_both_forms(text, seconds):
    """RFC 9110: seconds, or a date in one of three writings. What isn't understood is as if it weren't there."""
    assert parse_retry_after(text, NOW_S) == seconds
