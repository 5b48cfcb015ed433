"""A verified package in memory: its contract, its tokenizer, and how input becomes the tensors of its graphs.

No torch: preprocessing is `components.volumes.contract`, the code that training and evaluation use, so that a
served embedding equals the offline one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import ContractError, InputError
from components.release import bundle
from serving.uploads import Scan, read_scan

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from components.encoders.tokenization import ReportTokenizer
    from components.volumes.contract import Contract

    Array = npt.NDArray[np.float32]
    Tokens = dict[str, npt.NDArray[np.int64]]

GRAPHS = {"volume_encoder": "onnx/volume_encoder.onnx", "text_encoder": "onnx/text_encoder.onnx"}
HASH_PARAMETER = "velvet_model_hash"
OUTPUT = "unit_vectors"  # "embedding" would collide with a node of that name in the exporter
TEXT_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def package_folder() -> Path:
    """`VELVET_PACKAGE`, else the bundle inside a Bento, else artifacts/package below the project."""
    named = os.environ.get("VELVET_PACKAGE")
    if named:
        return Path(named)
    project = Path(__file__).resolve().parents[1]
    inside = project / "bundle"
    return inside if inside.is_dir() else project / "artifacts" / "package"


@dataclass(frozen=True)
class Package:
    """What a server needs of a sealed package; made by `Package.open` after every byte was checked."""

    folder: Path
    seal: str
    model: dict[str, Any]
    contract: Contract
    tokenizer: ReportTokenizer
    card: str

    @classmethod
    def open(cls, folder: Path) -> Package:
        """Verify and read a package; raises `IntegrityError`, or `ContractError` if its parts disagree."""
        from components.encoders.tokenization import ReportTokenizer
        from components.volumes.contract import Contract

        if not folder.is_dir():
            raise InputError(
                "there is no package to serve",
                rule="package.missing",
                fix="run the chain (`make run`), or give the folder with --package or VELVET_PACKAGE",
            )
        seal = bundle.verify(folder)
        encoder = folder / "encoder"
        contract = Contract.load(encoder)
        tokenizer = ReportTokenizer.from_json((encoder / "tokenizer.json").read_text(encoding="utf-8"))
        if contract.tokenizer_hash not in (None, tokenizer.hash):
            raise ContractError(
                f"the contract names the tokenizer {contract.tokenizer_hash}, the package holds {tokenizer.hash}",
                rule="contract.tokenizer",
                fix="package the encoder again from one training run",
            )
        card = (folder / "card.md").read_text(encoding="utf-8")
        return cls(folder, seal, bundle.read_model(folder), contract, tokenizer, card)

    @property
    def model_hash(self) -> str:
        """The hash of the weights, configuration, contract and tokenizer; it is in every response."""
        return str(self.model["model_hash"])

    def scan_tensor(self, scan: Scan) -> Array:
        """An uploaded scan -> float32 [1, 1, *size], within the limits and rules of preprocessing."""
        from components.base.config import parse
        from components.base.volume_files import Limits
        from components.volumes.geometry import GeometryRules, check

        volume = read_scan(scan, Limits(**self.model["limits"]))
        check(volume, parse(GeometryRules, self.model["rules"], "rules"))
        return self.volume_tensor(volume.array, volume.affine)

    def volume_tensor(self, array: npt.NDArray[Any], affine: npt.NDArray[Any]) -> Array:
        """A CT in HU [X, Y, Z] with its RAS+ affine (mm) -> float32 [1, 1, *size]."""
        from components.volumes.contract import model_input, to_store

        return model_input(to_store(array, affine, self.contract), self.contract)[None]

    def text_tensors(self, texts: Sequence[str]) -> Tokens:
        """Texts -> input_ids, token_type_ids, attention_mask, each int64 [B, L] with the package's fixed L."""
        arrays = self.tokenizer.encode_text(list(texts), pad_to=int(self.model["text_length"]))
        return {name: arrays[name] for name in TEXT_INPUTS}

    def scores(self, volume: Array, prompts: Array) -> tuple[list[float], list[float]]:
        """Cosine similarities of one volume [P] to prompts [K, P], and their softmax at the model's temperature."""
        import numpy as np

        similarities = (prompts @ volume).astype(np.float64)
        logits = similarities * float(self.model["logit_scale"])
        weights = np.exp(logits - logits.max())
        return similarities.tolist(), (weights / weights.sum()).tolist()
