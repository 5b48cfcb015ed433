"""Reach into a vision encoder at its patch embedding, whatever the encoder is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from components.base.errors import ConfigError


def patch_embedding(vision: nn.Module) -> nn.Module:
    """The encoder's first 3D convolution: its patch embedding or stem; `ConfigError` if it has none."""
    for module in vision.modules():
        if isinstance(module, nn.Conv3d):
            return module
    raise ConfigError(
        "the vision encoder has no 3D convolution to embed patches with",
        rule="objective.disruption",
        fix="switch the objective disruption off for this encoder",
    )


@contextmanager
def changed_embedding(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block the module's output `[B, C, *S]` is replaced by `change(output)`.

    Raises `ConfigError` at the end of the block if the module never ran as a module (a compiled encoder runs past
    hooks): the change would have been left out in silence.
    """
    calls = 0

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if calls == 0:
        raise ConfigError(
            "the vision encoder's patch embedding cannot be changed while it is compiled",
            rule="objective.disruption",
            fix="switch compilation or the objective disruption off",
        )
