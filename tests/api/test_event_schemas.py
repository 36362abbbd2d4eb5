"""Events of each type, as they really happen, against their published schemas."""

from __future__ import annotations

import json
import re
import textwrap
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest

from meterite.api.event_schemas import event_document
from meterite.model.columns import Batch
from meterite.model.event import EventType
from meterite.model.metric import MetricSpec, Notify
from meterite.storage.event_interface import Outcome, Result
from meterite.storage.interface import Append
from meterite.storage.store import SqliteStore

DOCS = Path(__file__).resolve().parents[2] / "docs" / "events"
YEAR_2030 = 1_893_456_000_000_000
MINUTE = 60_000_000
ORG = "org 01/ü"
LABELS = (("host", 'a"b'), ("room", "\\ß"))


class Story:
    """A store in which everything happens that can."""

    def __init__(self, path):
        self.now = YEAR_2030
        self.store = SqliteStore(path, clock=lambda: self.now)
        self.store.open()
        self.catalog = self.store.catalog
        spec = MetricSpec(code="M1", name="Meter", min_reading=0, max_reading=10.5, expected_every="5m")
        self.metric = self.catalog.create(ORG, spec)

    def commit(self, *readings, labels=()):
        """Of (minutes since 2030, value); the clock goes on by a minute."""
        org_id = self.catalog.org_id(ORG)
        (series,) = self.catalog.series(org_id, self.metric, [labels])
        at_us = np.array([YEAR_2030 + at * MINUTE for at, _ in readings], np.int64)
        values = np.array([value for _, value in readings], np.float64)
        batch = Batch(np.array([series]), np.zeros(len(readings), np.uint32), at_us, values)
        append = Append(org_id, self.catalog.changed(0)[0], batch)
        self.now += MINUTE
        self.store.commit([append])
        assert append.error is None

    def look_for_silence(self, minutes):
        self.now += minutes * MINUTE
        compaction = self.store.compaction()
        compaction.run_once()
        compaction.close()

    def give_up(self, handler):
        """Each delivery of the handler dies."""
        while self.store.outbox.fan_out(handler, lambda row: np.ones(len(row), bool)):
            pass
        for delivery in self.store.outbox.claim("me", handler, 1000):
            self.store.outbox.finish("me", [Result(delivery, Outcome.DEAD, error="410 Gone")])

    def change_everything(self):
        others = {
            "notify": Notify.EVERY,
            "truncate_reading_to": "hour",
            "timezone": "Europe/Berlin",
            "expected_every": None,
            "mute_until_us": YEAR_2030,
            "outside_for": "5m",
        }
        for field in fields(MetricSpec):
            if field.name not in {"code", "on_conflict"}:
                value = 2.5 if field.type == "float" else others.get(field.name, "other")
                self.catalog.update(ORG, "M1", {field.name: value})

    def tell(self):
        self.store.outbox.register(["ops"])
        self.commit((0, 5), (1, 11), (2, 12.25))
        self.commit((1, -1e300), labels=LABELS)
        self.commit((0, 99))
        self.commit((3, 1), labels=LABELS)
        self.commit((4, -0.0))
        self.look_for_silence(30)
        self.commit((40, 3))
        self.change_everything()
        for active in (False, True, False):
            self.catalog.set_active(ORG, "M1", active=active)
        self.catalog.delete(ORG, "M1")
        self.give_up("ops")
        return self.store.events.select(ORG, limit=1000).events


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """By type."""
    story = Story(tmp_path_factory.mktemp("story") / "m.db")
    found = defaultdict(list)
    for event in story.tell():
        found[event.type].append(event)
    story.store.close()
    return found


def schema_of(type_):
    return json.loads((DOCS / f"{type_}.json").read_text("utf-8"))


def strict(schema):
    """The schema, but that it names every field there is."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    return closed | {"additionalProperties": False} if "properties" in schema else closed


def mistakes(schema, document):
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    return [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("type_", EventType)
def test_events_are_as_their_schema_says(events, type_):
    """All fields are named, there is none that the schema doesn't know, and times and ids are what they are called."""
    assert events[type_]
    for event in events[type_]:
        document = json.loads(json.dumps(event_document(event)))
        assert mistakes(strict(schema_of(type_)), document) == []
        acked = json.loads(json.dumps(event_document(event, YEAR_2030)))
        assert mistakes(strict(schema_of(type_)), acked) == []


@pytest.mark.parametrize("type_", EventType)
def test_a_schema_refuses_what_isn_t_its_type(events, type_):
    """Another type's event, one without its data, one whose time is none."""
    document = event_document(events[type_][0])
    others = [event_document(events[other][0]) for other in EventType if other is not type_]
    for wrong in (*others, document | {"data": {}}, document | {"time": "now"}, document | {"id": "1"}):
        assert mistakes(schema_of(type_), wrong)


def test_what_was_told(events):
    """The story's events, as many as it has."""
    assert {str(type_): len(found) for type_, found in events.items() if type_ != EventType.DEAD} == {
        "meterite.reading.above_max": 2,
        "meterite.reading.below_min": 1,
        "meterite.limits.cleared": 2,
        "meterite.metric.silent": 1,
        "meterite.metric.resumed": 1,
        "meterite.metric.changed": len(fields(MetricSpec)) - 2 + 4,
    }
    assert [event.data["late"] for event in events[EventType.ABOVE_MAX]] == [False, True]
    assert len(events[EventType.DEAD]) == sum(len(found) for found in events.values()) // 2


def test_the_example_of_the_docs_is_an_event():
    """The one in ``docs/events.md``; its words for types are all there are."""
    page = (DOCS.parent / "events.md").read_text("utf-8")
    example = json.loads(textwrap.dedent(page[page.index("    {\n") : page.index("\n    }\n") + 7]))
    assert mistakes(strict(schema_of(example["type"])), example) == []
    assert set(re.findall(r"^\| `(meterite\.[a-z_.]+)`", page, re.MULTILINE)) == set(EventType)
