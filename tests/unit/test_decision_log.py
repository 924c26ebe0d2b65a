"""The decision log: one JSON line for each request, nothing private in it, and no harm from a broken stream."""

from __future__ import annotations

import io
import threading

import orjson
import pytest

from gateway.telemetry import decision_log
from gateway.telemetry.decision_log import DecisionLog, log_fields
from tests.support.records import decide, finished


def test_each_request_becomes_one_json_line() -> None:
    stream = io.StringIO()
    log = DecisionLog(stream)
    log.record(finished(request_id="r1"))
    log.record(finished(request_id="r2"))
    log.close()
    assert [orjson.loads(line)["request_id"] for line in stream.getvalue().splitlines()] == ["r1", "r2"]


def test_a_line_tells_who_was_chosen_and_why() -> None:
    fields = log_fields(finished())
    assert fields["decision"]["chosen"] == "small"
    assert fields["decision"]["rule"] == "utility"
    assert fields["decision"]["p"] == 0.75


def test_what_a_client_put_into_the_model_field_is_not_logged() -> None:
    line = orjson.dumps(
        log_fields(finished(requested_model="sk-secret", decision=None, model="", endpoint="sk-secret"))
    )
    assert b"sk-secret" not in line


def test_a_closed_stream_is_counted_and_does_no_harm() -> None:
    stream = io.StringIO()
    stream.close()
    log = DecisionLog(stream)
    log.record(finished())
    log.close()
    assert log.dropped == 1


def test_a_stream_that_does_not_keep_up_costs_lines_and_never_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_log, "MAX_QUEUED", 2)
    log = DecisionLog(io.StringIO())
    monkeypatch.setattr(log, "start", lambda: None)
    for _ in range(5):
        log.record(finished(decision=decide()))
    assert log.dropped == 3


def test_closing_ends_the_thread() -> None:
    log = DecisionLog(io.StringIO())
    log.start()
    log.close()
    assert "orbweaver-decision-log" not in {thread.name for thread in threading.enumerate()}
