"""The capability encoder: calibrated P(correct) for every prompt and model."""
