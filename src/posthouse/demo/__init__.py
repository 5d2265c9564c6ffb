"""Two throw-away houses on this computer that show themselves at work."""
