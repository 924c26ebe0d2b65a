"""From a reply to the answer it commits to: a pure function per answer type. None means "no answer found"."""
