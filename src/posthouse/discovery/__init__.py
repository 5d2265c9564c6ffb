"""Which servers an address elsewhere has: what its domain says in DNS and over HTTPS, else what usually is there."""
