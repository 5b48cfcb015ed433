"""Downstream tasks, one file each, found by their name."""

from components.base.registry import Registry

TASKS = Registry("downstream task", "components.downstream.tasks")
