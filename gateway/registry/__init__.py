"""What the gateway remembers: candidates, client keys, profiles, jobs, decisions."""
