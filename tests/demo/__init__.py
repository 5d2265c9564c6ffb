"""The demo, as its watchers meet it."""
