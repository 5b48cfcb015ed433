"""Downstream: one file a task, fitted on the frozen or unfrozen encoders."""
