"""Aptitude tests: what a new model is asked, and how its answers become a capability profile."""
