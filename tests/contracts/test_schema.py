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
schema = schemathesis.openapi.from_dict(openapi_document(), config=_config)


@schemathesis.serializer("application/x-ndjson")
def _ndjson(_context, value):
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
    """Every operation, with values that fit the document and with values that don't; and on a metric that exists."""
    sending = {"base_url": server.url, "headers": {"x-auth-token": ONE}}
    case.call_and_validate(**sending, checks=[not_a_server_error])
    if "code" in (case.path_parameters or {}):
        client.post("/metric/", json={"code": CODE, "name": CODE})
        client.post(f"/metric/{CODE}/activate")
        case.path_parameters["code"] = CODE
        case.call_and_validate(**sending, checks=[not_a_server_error])
