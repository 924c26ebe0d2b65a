"""A route whose bad input is explained as the config file's is: the field, the value, and the near names."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel

from gateway.config_file import explain_problem, section_in
from gateway.errors import InvalidBody


class ExplainingRoute(APIRoute):
    """Raises InvalidBody (422) with one line for each wrong field, in place of FastAPI's own complaint."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        model = None if self.body_field is None else section_in(self.body_field.field_info.annotation)

        async def explained(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise explain_request(error, model) from None

        return explained


def explain_request(error: RequestValidationError, model: type[BaseModel] | None) -> InvalidBody:
    """All problems of a request in one error; `param` is the first field at fault."""
    lines, fields = [], []
    for problem in error.errors():
        place, *path = problem["loc"]
        shown: dict[str, Any] = {**problem, "loc": tuple(path)}
        if problem["type"] == "json_invalid":
            shown = {**problem, "loc": ("body",), "msg": f"This is not JSON ({problem['ctx']['error']})", "input": None}
        elif not path:
            shown["loc"] = (place,)
        lines.append(explain_problem(shown, model if place == "body" and path else None))
        fields += [str(path[0])] if path else []
    return InvalidBody("\n".join(lines), param=fields[0] if fields else None, status=422)
