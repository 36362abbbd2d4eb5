"""Real clients against a real server process: each reading once, whatever happens between them."""
