"""Rate limits and budgets of client keys: in memory by default, Redis by URL."""
