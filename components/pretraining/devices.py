"""Devices, precision and processes of a run: one device, DDP or FSDP, by Lightning Fabric.

A process knows its place by the variables that torchrun sets (RANK, LOCAL_RANK, WORLD_SIZE, ...); how such processes
are started is in `launch`. FSDP is PyTorch's second (`fully_shard`): every block of the encoders is a unit of its
own, what remains belongs to the root, so that objectives may call any part of the encoders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, distributed, nn

from components.base.errors import ConfigError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.optim import Optimizer

    from components.pretraining.settings import Params


def make_fabric(params: Params) -> Fabric:
    """Devices, strategy and precision; the bar of progress and the folders of the Trainer do not come with it.

    Raises `ConfigError` if the processes that were started are not those that the parameters ask for.
    """
    world = params.devices * params.num_nodes
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != world:
        raise ConfigError(
            f"pretrain.devices x num_nodes is {world}, but this process is one of {started}",
            rule="pretrain.devices",
            fix="start the stage by its command, or torchrun with as many processes (docs/training.md)",
        )
    options: dict[str, Any] = {}
    if world > 1:
        from lightning.fabric.plugins.environments import TorchElasticEnvironment

        options = {"strategy": _strategy(params, world), "plugins": [TorchElasticEnvironment()]}
    fabric = Fabric(
        accelerator=params.accelerator,
        devices=params.devices,
        num_nodes=params.num_nodes,
        precision=params.precision,
        **options,
    )
    if params.num_threads:
        torch.set_num_threads(params.num_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return fabric


def _strategy(params: Params, world: int) -> Any:
    from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy

    if params.strategy == "fsdp":
        return ModelParallelStrategy(shard, data_parallel_size=world, tensor_parallel_size=1)
    # a recipe need not use every part of the encoders, and a batch need not suit every objective
    return DDPStrategy(find_unused_parameters=True)


def shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Split the parameters of a `PretrainModule` between processes: its encoders' blocks, then the rest.

    A single number cannot be split: it stays whole, and its gradient is averaged as DDP would.
    """
    from torch.distributed.fsdp import fully_shard

    ranks = mesh["data_parallel"]
    scalars = {value for value in module.parameters() if value.ndim == 0}
    for value in scalars:
        value.register_post_accumulate_grad_hook(_averaged)
    for stack in reversed(
        list(cast("Any", module).encoder.modules())
    ):  # inner blocks before those around them
        if isinstance(stack, nn.ModuleList):
            for block in stack:
                if any(True for _ in block.parameters()):
                    fully_shard(block, mesh=ranks, ignored_params=scalars)
    return cast("nn.Module", fully_shard(module, mesh=ranks, ignored_params=scalars))


def _averaged(value: Tensor) -> None:
    if value.grad is not None:
        distributed.all_reduce(value.grad)
        value.grad /= distributed.get_world_size()


@torch.no_grad()
def clip_split(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale gradients, split and whole ones together, to a norm of at most `max_norm`; returns the norm before."""
    gradients: list[Any] = [value.grad for value in parameters if value.grad is not None]
    split = [value.to_local() for value in gradients if hasattr(value, "to_local")]
    kept = [value for value in gradients if not hasattr(value, "to_local")]
    zero = torch.zeros((), device=gradients[0].device)
    total = sum((value.float().square().sum() for value in split), zero)
    distributed.all_reduce(total)
    norm = sum((value.float().square().sum() for value in kept), total).sqrt()
    share = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in (*split, *kept):
        value.mul_(share.to(value.dtype))
    return norm


def whole(value: Tensor) -> Tensor:
    """A tensor with all its parts; every process must ask at the same time if it is split."""
    return cast("Tensor", value.full_tensor()) if hasattr(value, "full_tensor") else value


def like(value: Tensor, model: Tensor) -> Tensor:
    """A whole tensor split, or laid out in memory, as `model` is: fused optimisers pair numbers by their place."""
    if not hasattr(model, "full_tensor"):
        return torch.empty_like(model, dtype=value.dtype, device=value.device).copy_(value)
    from torch.distributed.tensor import distribute_tensor

    split: Any = model
    return distribute_tensor(value.to(split.device), split.device_mesh, split.placements)


def is_split(module: nn.Module) -> bool:
    """Whether a module's parameters are split between processes."""
    return any(hasattr(value, "full_tensor") for value in module.parameters())


@torch.no_grad()
def load_weights(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put whole tensors by name into a module, split or not; names must agree exactly."""
    if is_split(module):
        target = module.state_dict()
        tensors = {name: like(value, target[name]) for name, value in tensors.items()}
    module.load_state_dict(tensors)


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat named whole tensors: `INDEX.NAME`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": whole(torch.as_tensor(value))
        for index, entry in state.items()
        for name, value in entry.items()
    }


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put what `optimizer_tensors` gave back into an optimizer of the same parameters."""
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        owner = parameters[int(index)]
        state.setdefault(int(index), {})[name] = like(value, owner) if value.shape == owner.shape else value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def weight_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's whole weights and buffers by name, on the CPU."""
    return {name: whole(value.detach()).cpu().clone() for name, value in module.state_dict().items()}
