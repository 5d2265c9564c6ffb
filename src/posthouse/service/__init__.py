"""`serve` as a service: whom it becomes, the sockets it is handed, what it tells systemd, and what watches over it.

No library stands behind it: each of these is a few system calls, and what systemd wants to hear is a datagram.
"""
