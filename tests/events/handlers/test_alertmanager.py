"""Alertmanager: Debian's own program on loopback, and what each event is to it."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from pydantic import ValidationError

from events.handlers.alertmanager_program import Program, alerts
from events.handlers.receiver import answer, receiving
from events.handlers.samples import RECORDED_AT_US, sample
from meterite.events.handler import Refused, Retry
from meterite.events.handlers.alertmanager import Alertmanager, AlertmanagerOptions, alert_labels, alert_name
from meterite.model.event import EventType

NOW_S = RECORDED_AT_US / 1e6 + 5


def options(url="https://example.com", **others):
    return AlertmanagerOptions.model_validate({"name": "am", "kind": "alertmanager", "url": url, **others})


@asynccontextmanager
async def handler(url, *, clock=time.time, **others):
    made = Alertmanager(options(url, allow_private=True, **others), clock=clock)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def tell(url, *events, **others):
    async def scenario():
        async with handler(url, **others) as made:
            for event in events:
                await made.handle(event)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def now_us(offset_s=0):
    return int((time.time() + offset_s) * 1e6)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory):
    """The real program, with nobody to tell; its URL."""
    with Program(tmp_path_factory.mktemp("alertmanager")) as running:
        yield running.url


class TestTheRealOne:
    def test_outside_fires_and_cleared_resolves(self, alertmanager):
        tell(alertmanager, sample(org="fires", at_us=now_us(-2)))
        [alert] = alerts(alertmanager, org="fires")
        assert alert["labels"] == {"alertname": "MeteriteOutsideLimits", "org": "fires", "metric": "M1"}
        assert alert["annotations"]["summary"] == ("Meter 1 (M1) is above its maximum of 100 kWh: 101.5 kWh")
        assert alert["status"]["state"] == "active"
        tell(alertmanager, sample(EventType.CLEARED, org="fires", at_us=now_us(-1)))
        assert alerts(alertmanager, org="fires") == []

    def test_from_one_limit_to_the_other_is_one_alert(self, alertmanager):
        above, below = sample(org="both"), sample(EventType.BELOW_MIN, org="both")
        tell(alertmanager, above, below)
        [alert] = alerts(alertmanager, org="both")
        assert "below its minimum" in alert["annotations"]["summary"]
        tell(alertmanager, sample(EventType.CLEARED, org="both", at_us=now_us()))
        assert alerts(alertmanager, org="both") == []

    def test_it_fires_again(self, alertmanager):
        at = now_us(-10)
        tell(alertmanager, sample(org="again", at_us=at))
        tell(alertmanager, sample(EventType.CLEARED, org="again", at_us=at + 1_000_000))
        tell(alertmanager, sample(org="again", at_us=at + 2_000_000))
        assert len(alerts(alertmanager, org="again")) == 1

    def test_told_twice_is_one(self, alertmanager):
        event = sample(org="twice", at_us=now_us(-1))
        tell(alertmanager, event, event)
        assert len(alerts(alertmanager, org="twice")) == 1

    def test_series_are_alerts_of_their_own(self, alertmanager):
        one, two = ({"host": name, "disk-io": "x"} for name in "ab")
        tell(alertmanager, sample(org="series", labels=one), sample(org="series", labels=two))
        assert {alert["labels"]["host"] for alert in alerts(alertmanager, org="series")} == {"a", "b"}
        tell(alertmanager, sample(EventType.CLEARED, org="series", labels=one, at_us=now_us(-1)))
        [left] = alerts(alertmanager, org="series")
        assert left["labels"]["host"] == "b"
        assert left["labels"]["disk_io"] == "x"

    def test_silent_and_resumed(self, alertmanager):
        tell(alertmanager, sample(EventType.SILENT, org="silent", at_us=now_us(-2)))
        assert len(alerts(alertmanager, alertname="MeteriteSilent", org="silent")) == 1
        tell(alertmanager, sample(EventType.RESUMED, org="silent", at_us=now_us(-1)))
        assert alerts(alertmanager, org="silent") == []

    def test_a_late_reading_is_no_state(self, alertmanager):
        """Nothing will clear it: it doesn't raise the alert of the series, and ends by itself."""
        tell(alertmanager, sample(org="late", late=True, at_us=now_us()), once_for="10m")
        [alert] = alerts(alertmanager, org="late")
        assert alert["labels"]["alertname"] == "MeteriteLateReading"
        tell(alertmanager, sample(EventType.CLEARED, org="late", at_us=now_us()))
        assert len(alerts(alertmanager, org="late")) == 1
        tell(alertmanager, sample(org="late-soon", late=True, at_us=now_us(-1)), once_for=0.000001)
        assert alerts(alertmanager, org="late-soon") == [], "its end has passed"

    def test_a_dead_delivery(self, alertmanager):
        tell(alertmanager, sample(EventType.DEAD, org="dead", at_us=now_us()))
        [alert] = alerts(alertmanager, org="dead")
        assert (alert["labels"]["alertname"], alert["labels"]["handler"]) == ("MeteriteDeliveryDead", "ops")

    def test_own_labels_for_routing(self, alertmanager):
        tell(alertmanager, sample(org="own"), labels={"severity": "page"})
        assert len(alerts(alertmanager, org="own", severity="page")) == 1
        tell(
            alertmanager,
            sample(EventType.CLEARED, org="own", at_us=now_us(-1)),
            labels={"severity": "page"},
        )
        assert alerts(alertmanager, org="own") == []

    def test_labels_of_any_name_and_text_are_taken(self, alertmanager):
        labels = {
            "größe": "1 µm",
            "1st": "a",
            "alertname": "x",
            "metric": "y",
            "a-b": "1",
            "a_b": "2",
            "🜁": "🜁",
        }
        event = sample(org="odd", labels=labels)
        tell(alertmanager, event)
        [alert] = alerts(alertmanager, org="odd")
        assert alert["labels"]["series"] == event.subject
        assert alert["labels"]["alertname"] == "MeteriteOutsideLimits"
        assert alert["labels"]["label_alertname"] == "x"

    def test_a_wrong_path_is_refused(self, alertmanager):
        with pytest.raises(Refused, match="404"):
            tell(alertmanager.removesuffix("/behind"), sample())


class TestWhatIsSent:
    def posted(self, *events, **others):
        async def scenario():
            async with (
                receiving(answer(200)) as receiver,
                handler(f"http://127.0.0.1:{receiver.port}/am/", clock=lambda: NOW_S, **others) as made,
            ):
                for event in events:
                    await made.handle(event)
                return receiver.requests

        return asyncio.run(asyncio.wait_for(scenario(), 30))

    def test_path_and_times(self):
        fired, resolved = self.posted(sample(), sample(EventType.CLEARED))
        assert (fired.method, fired.path) == ("POST", "/am/api/v2/alerts")
        assert fired.headers["content-type"] == "application/json"
        [alert] = json.loads(fired.body)
        assert alert["startsAt"] == sample().time
        assert alert["endsAt"].startswith("2023-12-14T22:13:25"), "30 days from now on"
        [alert] = json.loads(resolved.body)
        assert "startsAt" not in alert, "Alertmanager keeps the one it has"
        assert alert["endsAt"] == sample().time

    def test_ends_after(self):
        [request] = self.posted(sample(EventType.SILENT), ends_after="1h")
        assert json.loads(request.body)[0]["endsAt"].startswith("2023-11-14T23:13:25")

    def test_changes_are_no_alarms(self):
        assert self.posted(sample(EventType.CHANGED)) == []

    def test_a_failing_alertmanager_is_tried_again(self):
        async def scenario():
            async with (
                receiving(answer(500)) as receiver,
                handler(f"http://127.0.0.1:{receiver.port}") as made,
            ):
                with pytest.raises(Retry, match="500"):
                    await made.handle(sample())

        asyncio.run(scenario())


class TestLabels:
    @pytest.mark.parametrize(
        ("type_", "ends"),
        [
            (EventType.ABOVE_MAX, EventType.CLEARED),
            (EventType.BELOW_MIN, EventType.CLEARED),
            (EventType.SILENT, EventType.RESUMED),
        ],
    )
    def test_every_alarm_has_the_identity_of_what_ends_it(self, type_, ends):
        labels = {"host": "a", "org": "x"}
        first, last = sample(type_, labels=labels), sample(ends, labels=labels, number=2)
        assert alert_labels(first, alert_name(first), {}) == alert_labels(last, alert_name(last), {})

    def test_two_series_whose_labels_fall_together_are_told_apart(self):
        one, two = (alert_labels(sample(labels={name: "1"}), "x", {}) for name in ("a-b", "a.b"))
        assert one != two


class TestOptions:
    def test_it_is_ordered_unless_told_otherwise(self):
        """A resolve that overtakes what it resolves would leave the alert firing."""
        assert options().ordered
        assert not options(ordered=False).ordered

    @pytest.mark.parametrize(
        ("others", "why"),
        [
            ({"labels": {"a-b": "c"}}, "letters, digits"),
            ({"labels": {"org": "c"}}, "must not have org"),
            ({"ends_after": "0s"}, "greater than 0"),
            ({"url": "http://127.0.0.1:9093"}, "allow_private"),
        ],
    )
    def test_what_cannot_be_used(self, others, why):
        with pytest.raises(ValidationError, match=why):
            options(**others)
