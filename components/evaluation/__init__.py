"""Evaluation: named protocols, statistics, gates and the report a person reads."""
