"""Pre-training: batches, the shared features of a step, the Lightning module and exact resume."""
