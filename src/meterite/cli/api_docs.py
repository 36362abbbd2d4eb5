"""``docs/api.md`` from the OpenAPI document, and ``docs/events/`` from the events' schemas.

Guaranteed: the same document gives the same bytes, and every route, parameter, body, answer and schema in it
is on the page.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METHODS = ("get", "post", "put", "patch", "delete", "head", "options", "trace")
HEAD = """# The API

Written by `make openapi` from the program itself; change the program, not this page. The same for tools:
[`openapi.json`](../openapi.json).
"""


def dump(document: dict[str, Any]) -> str:
    """Sorted and indented, so that a change of the API is a readable change of the file."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write(document: dict[str, Any], events: dict[str, dict[str, Any]], directory: Path) -> None:
    """Write all of it below the repository's root: the document, its page, and a file for each type of event."""
    (directory / "docs" / "events").mkdir(parents=True, exist_ok=True)
    (directory / "openapi.json").write_text(dump(document), encoding="utf-8")
    (directory / "docs" / "api.md").write_text(render(document), encoding="utf-8")
    for type_, schema in events.items():
        (directory / "docs" / "events" / f"{type_}.json").write_text(dump(schema), encoding="utf-8")


def render(openapi: dict[str, Any]) -> str:
    """The whole page as markdown: one section a route, then one a schema."""
    parts = [HEAD, *_description(openapi.get("info", {})), "## Routes\n"]
    for path, item in sorted(openapi.get("paths", {}).items()):
        for method in METHODS:
            if method in item:
                parts.extend(_route(method, path, item[method], item.get("parameters", [])))
    schemas = openapi.get("components", {}).get("schemas", {})
    if schemas:
        parts.append("## Schemas\n")
    for name, schema in sorted(schemas.items()):
        parts.extend(_schema(name, schema))
    return "\n".join(parts)


def _route(method: str, path: str, call: dict[str, Any], shared: list[dict[str, Any]]) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    if call.get("summary"):
        yield f"**{call['summary']}**\n"
    yield from _description(call)
    if call.get("security") == []:
        yield "No token needed.\n"
    parameters = [*shared, *call.get("parameters", [])]
    if parameters:
        yield from _table(("parameter", "in", "type", "required", "meaning"), map(_parameter, parameters))
    body = call.get("requestBody")
    if body is not None:
        required = "required" if body.get("required") else "optional"
        yield from _table((f"body ({required})", "type"), _contents(body))
    yield from _table(("answer", "meaning", "body"), _answers(call.get("responses", {})))


def _parameter(parameter: dict[str, Any]) -> tuple[str, ...]:
    if "$ref" in parameter:
        return (_reference(parameter["$ref"]), "", "", "", "")
    schema = parameter.get("schema", {})
    return (
        f"`{parameter['name']}`",
        str(parameter["in"]),
        _type(schema),
        "yes" if parameter.get("required") else "",
        _meaning({**schema, **parameter}),
    )


def _contents(body: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for media, content in sorted(body.get("content", {}).items()):
        yield f"`{media}`", _type(content.get("schema", {}))


def _answers(responses: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for status, response in sorted(responses.items()):
        bodies = "; ".join(f"{media}: {kind}" for media, kind in _contents(response))
        yield str(status), str(response.get("description", "")), bodies


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    yield from _description(schema)
    properties = schema.get("properties", {})
    if not properties:
        yield f"{_type(schema)}\n"
        return
    required = schema.get("required", [])
    rows = (
        (f"`{field}`", _type(part), "yes" if field in required else "", _meaning(part))
        for field, part in properties.items()
    )
    yield from _table(("field", "type", "required", "meaning"), rows)


def _type(schema: dict[str, Any] | bool) -> str:
    if isinstance(schema, bool) or not schema:
        return "anything"
    if "$ref" in schema:
        return _reference(schema["$ref"])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return (" and " if word == "allOf" else " or ").join(_type(part) for part in schema[word])
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"array of ({_type(schema.get('items', {}))})"
    return " ".join([*_kinds(schema), *_bounds(schema)]) or "anything"


def _kinds(schema: dict[str, Any]) -> Iterator[str]:
    kind = schema.get("type", "")
    yield " or ".join(kind) if isinstance(kind, list) else str(kind)
    if "format" in schema:
        yield f"({schema['format']})"


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    for word, sign in (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    ):
        if word in schema:
            yield f"{sign} {schema[word]}"
    if "minLength" in schema or "maxLength" in schema:
        yield f"of {schema.get('minLength', 0)} to {schema.get('maxLength', 'any number of')} characters"
    if "pattern" in schema:
        yield f"matching `{schema['pattern']}`"


def _meaning(part: dict[str, Any]) -> str:
    default = f"Default: `{json.dumps(part['default'], ensure_ascii=False)}`." if "default" in part else ""
    return " ".join(text for text in (part.get("description", ""), default) if text)


def _reference(target: str) -> str:
    name = target.rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


def _description(part: dict[str, Any]) -> Iterator[str]:
    if part.get("description"):
        yield f"{part['description'].strip()}\n"


def _table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    lines = [_line(head), _line(("---",) * len(head)), *map(_line, rows)]
    if len(lines) > 2:
        yield "\n".join(lines) + "\n"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
