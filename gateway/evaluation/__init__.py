"""`orbweaver eval`: a pool of recorded models behind a real gateway, routed, graded and counted over HTTP."""
