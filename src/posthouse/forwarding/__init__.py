"""Mail on: which recipients are due, where they go, what became of the attempt, and the report to the sender."""
