"""Pre-training objectives, one file each, found by their name."""

from components.base.registry import Registry

OBJECTIVES = Registry("objective", "components.objectives")
