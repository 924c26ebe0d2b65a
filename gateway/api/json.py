"""JSON answers by orjson."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response


def json_response(data: Any, status: int = 200) -> Response:
    """`data` (dataclasses and enums too) as a JSON answer."""
    return Response(orjson.dumps(data), status_code=status, media_type="application/json")
