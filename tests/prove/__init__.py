"""`posthouse prove`, and what it finds when a house is tampered with."""
