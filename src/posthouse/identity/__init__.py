"""Who is it: the one authenticator of all protocols."""
