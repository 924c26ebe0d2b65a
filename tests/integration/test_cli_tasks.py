"""`orbweaver tasks`: a task taught on the command line is in the index of a running gateway."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from capability_encoder.artifact import SHIPPED
from gateway.cli.tasks import app

pytestmark = pytest.mark.skipif(not (SHIPPED / "manifest.json").is_file(), reason="no trained artefact is shipped yet")


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors of the command; pytest's own arguments must not be read as its."""
    finished = CliRunner().invoke(app, arguments)
    return finished.exit_code, finished.output, str(finished.exception or "")


def test_a_task_is_added_listed_and_removed(tmp_path: Path) -> None:
    examples = tmp_path / "examples.jsonl"
    examples.write_text(
        '{"prompt": "Review this lease for unfair terms"}\n{"prompt": "Draft a confidentiality clause"}\n'
    )
    state = ("--state-dir", str(tmp_path / "state"))
    code, out, _ = run("add", "legal-review", "--examples", str(examples), *state, "--json")
    added = json.loads(out)
    assert (code, added["shots"]) == (0, 2)
    assert sum(weight for _, weight in added["calibrated_from"]) <= 1.0001
    assert json.loads(run("list", *state, "--json")[1]) == [{"name": "legal-review", "shots": 2}]
    assert run("remove", "legal-review", *state)[0] == 0
    assert json.loads(run("list", *state, "--json")[1]) == []


def test_a_bad_file_is_an_error_with_its_line(tmp_path: Path) -> None:
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"text": "no prompt"}\n')
    code, _, err = run("add", "leases", "--examples", str(examples), "--state-dir", str(tmp_path / "state"))
    assert code != 0
    assert "line 1 holds no prompt" in err
