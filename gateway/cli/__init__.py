"""Typer command groups: parse and print, nothing else."""
