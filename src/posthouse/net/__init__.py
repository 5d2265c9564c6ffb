"""asyncio: streams, listeners, TLS, DNS, and the connections that clients use."""
