"""Licences: the most restrictive wins, unknown blocks export."""

from __future__ import annotations

import pytest

from merge_backends.errors import LicenceError
from merge_backends.licences import Terms, combine, read_licence, require_export, terms_of


@pytest.mark.parametrize(
    ("licence", "terms"),
    [
        ("apache-2.0", Terms.ATTRIBUTION),
        ("MIT", Terms.ATTRIBUTION),
        ("cc0-1.0", Terms.FREE),
        ("cc-by-4.0", Terms.ATTRIBUTION),
        ("cc-by-sa-4.0", Terms.SHARE_ALIKE),
        ("gpl-3.0", Terms.SHARE_ALIKE),
        ("llama3.1", Terms.NAME_CLAUSE),
        ("cc-by-nc-4.0", Terms.NON_COMMERCIAL),
        ("cc-by-nc-sa-4.0", Terms.NON_COMMERCIAL),
        ("cc-by-nd-4.0", Terms.NO_DERIVATIVES),
        ("our-own-terms", Terms.UNKNOWN),
    ],
)
def test_what_a_licence_asks(licence, terms):
    assert terms_of(licence) == terms


def test_the_most_restrictive_wins_and_all_obligations_stay():
    verdict = combine(["apache-2.0", "cc-by-nc-4.0", "mit"])
    assert verdict.licence == "cc-by-nc-4.0"
    assert verdict.obligations == ("keep the notices of the parents", "no commercial use")
    require_export(verdict)


@pytest.mark.parametrize("licences", [["mit", "unknown"], [], ["mit", "our-own-terms"]])
def test_unknown_blocks_export_unless_allowed(licences):
    verdict = combine(licences)
    assert verdict.licence == "unknown"
    with pytest.raises(LicenceError):
        require_export(verdict)


def test_unknown_can_be_allowed_but_no_derivatives_cannot():
    require_export(combine(["mit", "unknown"]), allow_unknown=True)
    with pytest.raises(LicenceError, match="forbids"):
        require_export(combine(["cc-by-nd-4.0", "unknown"]), allow_unknown=True)


def test_two_share_alike_licences_exclude_each_other():
    with pytest.raises(LicenceError, match="each ask for themselves"):
        require_export(combine(["gpl-3.0", "cc-by-sa-4.0"]))


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: MIT\n---\n# x", "mit"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("# no head\nlicense: mit", "unknown"),
        ("---\nlicense: [\n---\n", "unknown"),
    ],
)
def test_the_card_states_the_licence(tmp_path, card, licence):
    (tmp_path / "README.md").write_text(card)
    assert read_licence(tmp_path) == licence
