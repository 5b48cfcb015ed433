"""An encoder as a folder: `model.safetensors, config.json, contract.json, tokenizer.json, card.md`.

The folder appears whole or not at all, its bytes depend on the encoder alone, and reading it trusts
nothing: names, shapes, types and finiteness of every tensor are checked before use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import ContractError, InputError, IntegrityError
from components.base.files import atomic_folder, missing_input, read_json, write_json, write_text
from components.volumes.contract import PREPROCESSING_FIELDS, Contract, require_same

if TYPE_CHECKING:
    from torch import Tensor

    from components.encoders.dual import DualEncoder
    from components.encoders.tokenization import ReportTokenizer

WEIGHTS, CONFIG, CONTRACT, TOKENIZER, CARD = FILES = (
    "model.safetensors",
    "config.json",
    "contract.json",
    "tokenizer.json",
    "card.md",
)
FORMAT = "velvet.dual-encoder/1"
TEXT_FIELDS = ("report_fields", "tokenizer_hash", "prompt_set")
RESTORE = "restore the encoder's folder from where it was written, or pretrain again"


def save(encoder: DualEncoder, folder: Path, card: str) -> None:
    """Write the folder atomically; what was there before stays until the new one is complete."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    with atomic_folder(folder) as temp:
        save_file(state, temp / WEIGHTS, metadata={"format": "pt"})
        write_json(temp / CONFIG, {"format": FORMAT, **encoder.config})
        write_json(temp / CONTRACT, encoder.contract.model_dump(mode="json"))
        write_text(temp / TOKENIZER, encoder.tokenizer.to_json())
        write_text(temp / CARD, card.rstrip() + "\n")


def load(folder: Path, device: str) -> DualEncoder:
    """See `components.encoders.from_pretrained`."""
    from components.encoders.dual import skeleton
    from components.encoders.tokenization import ReportTokenizer

    for name in FILES:
        if not (folder / name).is_file():
            raise missing_input(folder / name)
    config = _read_config(folder)
    try:
        text = (folder / TOKENIZER).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise IntegrityError("tokenizer.json is not UTF-8", rule="tokenizer.format", fix=RESTORE) from None
    tokenizer = ReportTokenizer.from_json(text)
    encoder = skeleton(
        config["vision"], config["text"], config["embed_dim"], tokenizer, Contract.load(folder)
    )
    put_weights(encoder, read_weights(folder / WEIGHTS), WEIGHTS)
    return encoder.to(device).eval()


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / CONFIG)
    shapes = {"vision": dict, "text": dict, "embed_dim": int}
    if (
        not isinstance(config, dict)
        or config.get("format") != FORMAT
        or any(not isinstance(config.get(key), kind) for key, kind in shapes.items())
    ):
        raise InputError("config.json is not a dual encoder's", rule="encoder.config", fix=RESTORE)
    return config


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; `IntegrityError` for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError, OverflowError, MemoryError):
        raise IntegrityError(f"{file.name} is malformed", rule="weights.format", fix=RESTORE) from None


def put_weights(encoder: DualEncoder, state: Mapping[str, Tensor], source: str) -> None:
    """Put tensors into the encoder; they must be exactly those that it has. `source` is for the message."""
    import torch

    expected = encoder.state_dict()
    odd = sorted(expected.keys() ^ state.keys())
    if odd:
        raise IntegrityError(
            f"{source}: {len(odd)} tensors are missing or unknown, the first is {odd[0][:80]!r}",
            rule="weights.names",
            fix=RESTORE,
        )
    for name, tensor in state.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise IntegrityError(
                f"{source}: {name} is {tensor.dtype} {list(tensor.shape)}, "
                f"not {wanted.dtype} {list(wanted.shape)}",
                rule="weights.shape",
                fix=RESTORE,
            )
        counted = name.endswith("num_batches_tracked")
        trained = tensor.is_floating_point() or counted  # tables of indices are not
        if not (torch.isfinite(tensor).all() if trained else torch.equal(tensor, wanted)):
            raise IntegrityError(
                f"{source}: {name} holds impossible values", rule="weights.values", fix=RESTORE
            )
    encoder.load_state_dict(state, strict=True)


def as_contract(contract: Contract | Mapping[str, Any]) -> Contract:
    """A `Contract` from itself or from plain data."""
    from components.base.config import parse

    return contract if isinstance(contract, Contract) else parse(Contract, contract, "contract")


def bind_contract(contract: Contract | Mapping[str, Any], tokenizer: ReportTokenizer) -> Contract:
    """The contract with the tokenizer's hash filled in; another hash is a `ContractError`."""
    bound = as_contract(contract)
    if bound.tokenizer_hash not in (None, tokenizer.hash):
        raise ContractError(
            f"the contract names another tokenizer "
            f"(tokenizer_hash: {str(bound.tokenizer_hash)[:16]} -> {tokenizer.hash[:16]})",
            rule="contract.tokenizer",
            fix="use the tokenizer.json that was written with this contract.json",
        )
    return bound.model_copy(update={"tokenizer_hash": tokenizer.hash})


def check(expected: Contract, found: Contract | Mapping[str, Any]) -> None:
    """See `components.encoders.check_contract`: preprocessing, and text fields that both sides know.

    `data_hash` says which data trained the encoder, so that other data may differ in it.
    """
    other = as_contract(found)
    shared = tuple(
        name for name in TEXT_FIELDS if None not in (getattr(expected, name), getattr(other, name))
    )
    require_same(expected, other, (*PREPROCESSING_FIELDS, *shared))
