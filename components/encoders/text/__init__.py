"""Text encoders, one file each, found by their name."""

from components.base.registry import Registry

TEXT = Registry("text encoder", "components.encoders.text")
