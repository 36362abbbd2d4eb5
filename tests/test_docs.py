"""The committed description of the API is the program's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from meterite.cli import api_docs

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def document():
    from meterite.app import openapi_document

    return openapi_document()


def test_openapi_json_is_what_the_app_says(document):
    """``openapi.json`` equals the app's document to the byte; ``make openapi`` writes it."""
    assert (ROOT / "openapi.json").read_text(encoding="utf-8") == api_docs.dump(document)


def test_schemas_of_events_are_the_programs(document):
    """``docs/events/`` has a file for each type and no other schema; ``make openapi`` writes them."""
    from meterite.app import event_schemas

    found = {
        path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "events").glob("*.json")
    }
    assert found == {type_: api_docs.dump(schema) for type_, schema in event_schemas().items()}


def test_api_page_is_rendered_from_the_document(document):
    """``docs/api.md`` equals what the document renders to; ``make openapi`` writes it."""
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == api_docs.render(document)
