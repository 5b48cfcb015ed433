"""Evaluation protocols, one file each, found by their name."""

from components.base.registry import Registry

PROTOCOLS = Registry("evaluation protocol", "components.evaluation.protocols")
