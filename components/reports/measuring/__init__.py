"""Measuring de-identification: hard notes, annotated files, scores by kind and layer, other tools beside it."""
