"""What the OpenAPI document says may be sent, and what it doesn't, never makes a 5xx."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig

from e2e.server import ONE
from meterite.app import openapi_document

EXAMPLES = 12
CODE = "schema"

_config = SchemathesisConfig()
_config.projects.default.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
# A stream of events ends with the server alone; it has tests of its own.
schema = schemathesis.openapi.from_dict(openapi_document(), config=_config).exclude(path="/events/stream")


@schemathesis.serializer(
    "application/openmetrics-text",
    "application/vnd.google.protobuf",
    "application/x-ndjson",
    "application/x-protobuf",
)
def _as_it_is(_context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_5xx(case, client, server):
    """Every operation, with values that fit the document and with values that don't; and on what exists."""
    sending = {"base_url": server.url, "headers": {"x-auth-token": ONE}}
    case.call_and_validate(**sending, checks=[not_a_server_error])
    there = {"code", "event_id"} & set(case.path_parameters or {})
    if there:
        client.post("/metric/", json={"code": CODE, "name": CODE})
        client.post(f"/metric/{CODE}/activate")
        known = {"code": CODE, "event_id": an_event(client)}
        case.path_parameters.update({name: known[name] for name in there})
        case.call_and_validate(**sending, checks=[not_a_server_error])


def an_event(client):
    """The id of one: changed limits are an event, and readings outside of them."""
    limited = {"code": "limited", "name": "n", "max_reading": 1}
    client.post("/metric/", json=limited)
    client.post("/metric/limited", json={"reading": 2})
    return client.get("/events", params={"limit": 1}).json()["events"][0]["id"]
