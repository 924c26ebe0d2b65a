"""Merged and mixture-of-experts candidates. Imports none of the other packages."""
