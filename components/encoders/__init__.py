"""3D image and text encoders: building, saving and `from_pretrained`. Importing this imports no torch.

from components.encoders import from_pretrained
encoder = from_pretrained(Path("artifacts/pretrain/encoder"))
vectors = encoder.embed_reports(["No pleural effusion."])
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.encoders.dual import DualEncoder
    from components.encoders.tokenization import ReportTokenizer
    from components.volumes.contract import Contract

__all__ = ["build", "check_contract", "from_pretrained"]


def build(
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    embed_dim: int,
    tokenizer: ReportTokenizer,
    contract: Contract | Mapping[str, Any],
    *,
    seed: int = 0,
) -> DualEncoder:
    """A new dual encoder; `vision` and `text` hold a registered `name` and its parameters.

    The same arguments give the same weights, whatever ran before. Raises `ConfigError` for unknown names,
    parameters and parts that do not fit, `ContractError` where the contract names another tokenizer.
    """
    from components.encoders.dual import build as make

    return make(vision, text, embed_dim, tokenizer, contract, seed=seed)


def from_pretrained(folder: Path | str, device: str = "cpu") -> DualEncoder:
    """The encoder that `save_pretrained` wrote, in eval mode. Offline; reads that folder alone.

    Raises `InputError` for a missing file, `IntegrityError` for bytes that are not what was written,
    `ContractError` where contract and tokenizer do not belong together.
    """
    from components.encoders.saving import load

    return load(Path(folder), device)


def check_contract(encoder: DualEncoder, contract: Contract | Mapping[str, Any]) -> None:
    """Raise `ContractError` with the difference unless data of `contract` suit the encoder."""
    from components.encoders.saving import check

    check(encoder.contract, contract)
