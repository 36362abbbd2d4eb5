"""The page about the API."""

from __future__ import annotations

from meterite.cli import api_docs

DOCUMENT = {
    "info": {"title": "T", "description": "What it is."},
    "paths": {
        "/b": {
            "post": {
                "summary": "Make",
                "parameters": [
                    {
                        "name": "limit",
                        "in": "query",
                        "schema": {"type": "integer", "minimum": 1, "default": 100},
                    }
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                },
                "responses": {"200": {"description": "Made"}, "409": {"description": "There | already"}},
            }
        },
        "/a": {"get": {"security": [], "responses": {"200": {"description": "Up"}}}},
    },
    "components": {
        "schemas": {
            "Thing": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 200},
                    "at": {"anyOf": [{"type": "null"}]},
                },
            },
            "Mode": {"enum": ["last", "first"]},
        }
    },
}


def test_everything_in_the_document_is_on_the_page():
    """Routes, parameters, bodies, answers and schemas are all named, routes in the order of paths."""
    page = api_docs.render(DOCUMENT)
    assert page.index("### `GET /a`") < page.index("### `POST /b`")
    assert "| `limit` | query | integer ≥ 1 |  | Default: `100`. |" in page
    assert "| `application/json` | [Thing](#thing) |" in page
    assert "| 409 | There \\| already |  |" in page
    assert "| `name` | string of 0 to 200 characters | yes |  |" in page
    assert '`"last"` or `"first"`' in page
    assert "No token needed." in page


def test_all_files_are_written_below_the_root(tmp_path):
    """``write`` makes openapi.json, docs/api.md and a file a type of event, the same bytes each time."""

    def written():
        api_docs.write(DOCUMENT, {"some.type": {"type": "object"}}, tmp_path)
        return {
            str(path.relative_to(tmp_path)): path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file()
        }

    first = written()
    assert set(first) == {"openapi.json", "docs/api.md", "docs/events/some.type.json"}
    assert written() == first
