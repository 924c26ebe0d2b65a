"""Generated pages equal what the code generates now, and every setting says what it means."""

from pathlib import Path

import pytest

from docs.build import FOLDER, PAGES, settings_page
from gateway import __version__


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_every_setting_is_documented() -> None:
    rows = [line for line in settings_page().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.rstrip(" |").endswith("`")] == []


def test_the_changelog_and_the_package_agree_on_the_version() -> None:
    root = Path(__file__).resolve().parents[2]
    assert f"## {__version__}" in (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{__version__}"' in (root / "pyproject.toml").read_text(encoding="utf-8")


def test_the_readme_has_at_most_two_hundred_lines() -> None:
    root = Path(__file__).resolve().parents[2]
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
