"""Mail out by POP3: the session driver."""
