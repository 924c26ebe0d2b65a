"""Generators: small pure functions from a random stream to one item's content, all in the registry `GENERATORS`."""

from aptitude_tests.generators.registry import GENERATORS, Generator, generator

__all__ = ["GENERATORS", "Generator", "generator"]
