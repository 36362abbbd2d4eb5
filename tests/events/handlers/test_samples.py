"""What the handlers are tested with is what is published."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest

from events.handlers.samples import sample
from meterite.model.event import EventType

SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "events"


@pytest.mark.parametrize("type_", list(EventType))
def test_samples_keep_the_published_schema(type_):
    schema = json.loads((SCHEMAS / f"{type_}.json").read_text(encoding="utf-8"))
    errors = jsonschema_rs.validator_for(schema).iter_errors(sample(type_, labels={"host": "a"}).to_dict())
    assert [error.message for error in errors] == []
