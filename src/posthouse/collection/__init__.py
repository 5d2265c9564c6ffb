"""Mail in by POP3 from other houses: what is new is downloaded, what is here is left or deleted there."""
