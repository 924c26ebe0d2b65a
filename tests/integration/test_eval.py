"""`orbweaver eval` on recorded answers of real models: registered, routed, graded and counted through HTTP."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.main import build_cli
from tests.eval.__main__ import SHARED, _upstream, models_of

DATA = SHARED / "data" / "routing"
REPLAY = SHARED / "tools" / "replay_upstream.py"

pytestmark = pytest.mark.skipif(not (DATA / "responses.parquet").is_file(), reason="no recorded answers beside us")


@pytest.mark.timeout(420)
def test_every_request_is_answered_counted_once_and_routed_as_offline(tmp_path: Path) -> None:
    given = Namespace(data=DATA, replay=REPLAY)
    models = models_of(DATA, "mmlu_pro_pool")[:5]
    out = tmp_path / "report.json"
    with (
        _upstream(given, "mmlu_pro_pool") as clean,
        _upstream(given, "mmlu_pro_pool", "--fail-rate", "0.05", "--hang-rate", "0.02") as faulty,
    ):
        arguments = ["eval", "--upstream", clean, "--faulty-upstream", faulty, "--models", ",".join(models)]
        arguments += ["--data", str(DATA), "--out", str(out), "--limit", "80", "--budget", "40", "--quality", "0.5,1"]
        ended = CliRunner().invoke(build_cli(arguments), arguments)
    assert ended.exit_code == 0, ended.output
    report = json.loads(out.read_text())
    assert [run["answered"] for run in report["runs"]] == [80, 80, 80]
    assert report["agreement"]["same"] == 80
    assert report["books"]["decisions"] == 240
    assert report["grading"]["agree"] >= 0.95 * report["grading"]["graded"] > 0
    assert report["faults"]["run"]["asked"] == report["faults"]["decisions"] == 80
    assert out.with_suffix(".html").read_text().startswith("<!doctype html>")


def test_a_pool_of_unknown_models_is_refused_with_names_that_exist(tmp_path: Path) -> None:
    from gateway.errors import ConfigError
    from gateway.evaluation.recorded import load_pool

    with pytest.raises(ConfigError, match="'nobody' is not in"):
        load_pool(DATA, ["nobody", "gpt-4o-2024-05-13"])
