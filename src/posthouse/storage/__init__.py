"""Durable state behind a few interfaces; one folder for each engine. Stages meet only here."""
