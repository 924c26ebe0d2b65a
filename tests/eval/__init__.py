"""`make eval`: the three replay pools end to end, from recorded answers beside the checkout."""
