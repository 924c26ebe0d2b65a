"""Our OpenAPI page describes the data plane and every wish that is read."""

from gateway.app import build_app
from gateway.routing.wishes import FIELDS
from gateway.settings import load_settings


def test_the_page_describes_every_endpoint_and_every_wish() -> None:
    page = build_app(load_settings()).openapi()
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/route", "/v1/models", "/v1/feedback", "/admin/models"):
        assert path in page["paths"]
    body = page["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]["orbweaver"]["properties"]) == set(FIELDS)
    assert body["additionalProperties"] is True
