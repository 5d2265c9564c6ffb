"""SMTP and POP3 without I/O: octets in, events out; decisions in, octets out (design: protocol cores)."""
