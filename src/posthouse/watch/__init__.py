"""Watching a house that runs: is it ready, how deep is the queue, what do its processes count."""
