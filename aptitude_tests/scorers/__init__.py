"""Scorers: how a reply to an item becomes a verdict. One module per answer type, all in the registry `SCORERS`."""

from aptitude_tests.scorers.registry import SCORERS, Scorer, check_item, score

__all__ = ["SCORERS", "Scorer", "check_item", "score"]
