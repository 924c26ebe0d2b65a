"""`ResponseOwners`: which model gave a stored response, so that `previous_response_id` leads back to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import orjson

from gateway.api.accounting import plain_body
from gateway.registry.records import Candidate
from gateway.upstreams.answer import ResponsesReader
from gateway.upstreams.outbound import Served

MOST = 50_000


class ResponseOwners:
    """Remembers the newest responses of this process. A provider keeps its responses to itself, so a later turn that
    builds on one can only be answered where the first was."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._owners: OrderedDict[str, str] = OrderedDict()

    def narrow(self, body: Mapping[str, object], candidates: Mapping[str, Candidate]) -> Mapping[str, Candidate]:
        """The owner of the response that this request builds on, alone; all candidates where it is not known."""
        previous = body.get("previous_response_id")
        owner = self._owners.get(previous) if isinstance(previous, str) else None
        found = candidates.get(owner) if owner is not None else None
        return candidates if found is None else {found.name: found}

    def note(self, served: Served) -> None:
        """Remember who gave this answer."""
        found = response_id(served)
        if found is not None:
            self._owners[found] = served.candidate.name
            self._owners.move_to_end(found)
            if len(self._owners) > self._most:
                self._owners.popitem(last=False)


def response_id(served: Served) -> str | None:
    """The id of a finished or streamed response, None where it cannot be read."""
    if served.stream is not None:
        reader = served.stream.reader
        return reader.response_id if isinstance(reader, ResponsesReader) else None
    try:
        answer = orjson.loads(plain_body(served))
    except orjson.JSONDecodeError:
        return None
    found = answer.get("id") if isinstance(answer, dict) else None
    return found if isinstance(found, str) else None
