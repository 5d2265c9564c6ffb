"""Values and text formats of mail. Standard library and `idna` only; no I/O, no clock, no randomness."""
