"""Pure functions of values: request features -> constraints -> policy -> decision. No I/O, no clock."""
