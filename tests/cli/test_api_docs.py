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


def test_both_files_are_written_below_the_root(tmp_path):
    """``write`` makes openapi.json and docs/api.md, the same bytes each time."""
    api_docs.write(DOCUMENT, tmp_path)
    before = (tmp_path / "openapi.json").read_bytes(), (tmp_path / "docs" / "api.md").read_bytes()
    api_docs.write(DOCUMENT, tmp_path)
    assert before == ((tmp_path / "openapi.json").read_bytes(), (tmp_path / "docs" / "api.md").read_bytes())
