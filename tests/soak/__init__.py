"""`make soak`: a week's abuse in minutes, and what must still be true afterwards."""
