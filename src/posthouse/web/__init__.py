"""HTTP: the door for operators."""
