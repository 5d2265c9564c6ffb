"""Throw-away houses that the demo and `prove` start, kill and look at."""
