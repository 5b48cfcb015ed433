"""Vision encoders, one file each, found by their name."""

from components.base.registry import Registry

VISION = Registry("vision encoder", "components.encoders.vision")
