"""Mail in by SMTP: the session driver."""
