"""MAL, heterogeneous merging of a zoo into one base: our reading of the summary of arXiv:2503.21657."""
