"""The evaluation page: drawn from the typed report alone, self-contained, honest at its edges."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from capability_encoder.training import report, report_plots
from capability_encoder.training.report_schema import load_report
from tests.support.encoder_report import small_report


def test_a_report_survives_its_json(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(small_report().model_dump_json())
    assert load_report(tmp_path / "r.json") == small_report()


def test_a_report_of_another_schema_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(small_report(schema_version=99).model_dump_json())
    with pytest.raises(ValueError, match="encoder evaluate"):
        report.write_page(tmp_path / "r.json", tmp_path / "p.html")


def test_the_page_loads_nothing_from_anywhere() -> None:
    page = report.render(small_report())
    assert not re.search(r"(src|href)=|@import|url\(|<script", page)


def test_the_page_shows_every_section_and_method() -> None:
    page = report.render(small_report())
    for heading in ("Gain per pool", "Cost against quality", "A new model joins", "Calibration", "Methods"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count(">kNN<") >= 2  # a row of the plot and a row of the table


def test_text_of_the_report_is_escaped() -> None:
    page = report.render(small_report())
    assert "neighbours &lt;k&gt;" in page
    assert "neighbours <k>" not in page


def test_a_part_that_was_not_measured_has_no_section() -> None:
    page = report.render(small_report(cost_curves=(), singles=(), onboarding=()))
    assert "Cost against quality" not in page
    assert "A new model joins" not in page


def test_every_drawing_is_well_formed() -> None:
    drawings = re.findall(r"<svg.*?</svg>", report.render(small_report()), flags=re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_methods_are_ranked_by_gain_with_bounds_at_the_foot() -> None:
    pool = small_report().pools[0]
    drawing = report_plots.forest_plot(pool, ours=frozenset({"ours"}), bounds=frozenset({"oracle"}))
    names = re.findall(r'class="name [^"]*" text-anchor="end">([^<]+)<', drawing)
    assert names == ["ours", "kNN", "oracle"]


def test_a_value_beyond_the_axis_becomes_an_arrow_and_keeps_its_number() -> None:
    pool = small_report().pools[0]
    drawing = report_plots.forest_plot(pool, ours=frozenset({"ours"}), bounds=frozenset({"oracle"}))
    assert drawing.count("<path") == 1
    assert "+30.00" in drawing


def test_linear_ticks_are_round_and_inside() -> None:
    assert report_plots.Scale(-1.3, 2.2, 0, 100).ticks(4) == pytest.approx([-1, 0, 1, 2])


def test_logarithmic_ticks_are_one_two_five() -> None:
    assert report_plots.Scale(0.3, 6, 0, 100, logarithmic=True).ticks() == pytest.approx([0.5, 1, 2, 5])


def test_a_scale_clamps_what_lies_outside() -> None:
    scale = report_plots.Scale(0, 10, 100, 200)
    assert [scale(v) for v in (-5, 5, 50)] == [100, 150, 200]
