"""What several gateways share through Redis. Redis being away never fails a request: each user has a local fallback."""
