"""Data sources, one file each, found by their name."""

from components.base.registry import Registry

SOURCES = Registry("data source", "components.cohort.sources")
