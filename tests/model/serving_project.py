"""A project's root as the stage `package` finds it: a small encoder, a store, reports, a split, metrics, a gate."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np

from components.base.config import Config, load_params
from components.base.files import sha256_file, write_json, write_table
from components.base.step import StepContext, _logger

REPORTS = [
    "FINDINGS: The lungs are clear. No pleural effusion. The heart is normal in size.",
    "There is a small right pleural effusion. No pneumothorax. IMPRESSION: Effusion.",
    "Atelectasis of the left lower lobe. Cardiomegaly. The aorta is calcified.",
]
PROJECT = Path(__file__).resolve().parents[2]
SIZE, SPACING = (24, 24, 16), (8.0, 8.0, 10.0)


def register_small_encoder() -> None:
    """A convolutional vision encoder that exports in seconds, under the name `small_test`."""
    import torch
    from torch import Tensor, nn

    from components.encoders.features import VolumeFeatures
    from components.encoders.interfaces import VisionEncoder
    from components.encoders.vision import VISION

    class SmallParams(Config):
        width: int = 8

    @VISION.register("small_test")
    class Small(VisionEncoder):
        Params: ClassVar[type[Config]] = SmallParams

        def __init__(self, params: SmallParams) -> None:
            super().__init__()
            self.channels, self.embed_dim = (params.width,), params.width
            self.first = nn.Conv3d(1, params.width, 4, stride=4)

        def forward(self, volume: Tensor) -> VolumeFeatures:
            features = torch.tanh(self.first(volume))
            return VolumeFeatures((features,), features.mean((2, 3, 4)))


def make_encoder(vision: dict | None = None):
    """A dual encoder with seeded random weights."""
    from components.encoders import build
    from components.encoders.tokenization import ReportTokenizer
    from components.volumes.contract import Contract

    register_small_encoder()
    tokenizer = ReportTokenizer.train(REPORTS * 3, vocab_size=200, max_length=40, max_sentences=6)
    contract = Contract(spacing_mm=SPACING, size=SIZE, hu_window=(-1000, 1000), output_range=(-1, 1))
    text = {"name": "tribert", "hidden": 16, "layers": 2, "multimodal_layers": 0, "heads": 2, "ffn": 32}
    text |= {"max_positions": 40, "max_sentences": 6}
    return build(vision or {"name": "small_test"}, text, 12, tokenizer, contract, seed=3).eval()


def scan_hu(seed: int = 0, shape: tuple[int, int, int] = (40, 40, 30)) -> np.ndarray:
    """A noisy ellipsoid of soft tissue in air with two lungs, int16 HU."""
    generator = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, count) for count in shape), indexing="ij")
    hu = np.where(x**2 + (y / 0.8) ** 2 < 0.8, 40.0, -1000.0)
    for side in (-0.4, 0.4):
        hu[((x - side) / 0.3) ** 2 + (y / 0.5) ** 2 + (z / 0.8) ** 2 < 1] = -850
    hu += generator.normal(0, 20, shape)
    return np.clip(hu, -1024, 3071).astype(np.int16)


def affine() -> np.ndarray:
    """LPS-ordered voxels of 7 x 7 x 9 mm."""
    return np.diag([-7.0, -7.0, 9.0, 1.0])


def make_root(root: Path, vision: dict | None = None) -> Path:
    """Write everything that `package` reads below `root`; returns it."""
    import pyarrow as pa

    from components.volumes.contract import to_store
    from components.volumes.store import write_array

    encoder = make_encoder(vision)
    encoder.save_pretrained(root / "artifacts/pretrain/encoder", "# card of the training run")
    rows = []
    for number in range(3):
        key = f"ser_{number:016x}"
        hu = to_store(scan_hu(number), affine(), encoder.contract)
        relative = f"store/{key}.b2nd"
        digest = write_array(root / "artifacts/preprocess" / relative, hu, {"series_key": key})
        ids = {"study_key": f"stu_{number:016x}", "patient_key": f"pat_{number:016x}", "series_key": key}
        rows.append(ids | {"shape": list(hu.shape), "file_sha256": digest, "masks_json": "{}"})
    write_table(root / "artifacts/preprocess/index.parquet", pa.Table.from_pylist(rows))
    encoder.contract.save(root / "artifacts/preprocess")
    reports = [{"study_key": row["study_key"], "text": text} for row, text in zip(rows, REPORTS)]
    write_table(root / "artifacts/deidentify/reports.parquet", pa.Table.from_pylist(reports))
    names = ("train", "validation", "test")
    split = [
        {key: row[key] for key in ("study_key", "patient_key", "series_key")}
        | {"split": name, "paired": True, "provenance": "synthetic"}
        for row, name in zip(rows, names)
    ]
    write_table(root / "artifacts/split/split.parquet", pa.Table.from_pylist(split))
    told = {"source": "phantom", "provenance": "synthetic", "sex": "F", "age_band": "50-59"}
    described = [{key: row[key] for key in ("patient_key", "series_key")} | told for row in split]
    write_table(root / "artifacts/deidentify/manifest.parquet", pa.Table.from_pylist(described))
    metric = {
        "value": 0.75,
        "low": 0.5,
        "high": 1.0,
        "chance": 0.25,
        "n": 4,
        "n_patients": 4,
        "unit": "fraction",
    }
    write_json(root / "artifacts/evaluate/retrieval/metrics.json", {"recall_at_1": metric})
    candidate = sha256_file(root / "artifacts/pretrain/encoder/model.safetensors")
    verdict = {"passed": True, "reasons": [], "candidate": candidate}
    write_json(root / "artifacts/gate/verdict.json", verdict)
    return root


def context(root: Path) -> StepContext:
    """The context of the stage `package` below `root`, with the parameters in force."""
    return StepContext(root, "package", None, _logger(root, "package"), load_params(PROJECT / "params.yaml"))


@functools.cache
def built_root() -> Path:
    """A root with the stage `package` done, Bento included; made once a process and removed at its end."""
    from components.base.config import parse
    from serving import package

    folder = Path(tempfile.mkdtemp(prefix="velvet-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = context(make_root(folder))
    package.STEP.execute(parse(package.Params, made.all_params["package"], "package"), made)
    return folder


def offline_volume(hu: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The embedding [P] that PyTorch gives, through the code of evaluation."""
    import torch

    from components.encoders import from_pretrained
    from components.volumes.contract import model_input, to_store

    register_small_encoder()
    encoder = from_pretrained(built_root() / "artifacts/pretrain/encoder")
    volume = model_input(to_store(hu, where, encoder.contract), encoder.contract)
    with torch.no_grad():
        return encoder.encode_volume(torch.from_numpy(volume[None])).numpy()[0]


def offline_texts(texts: list[str]) -> np.ndarray:
    """The embeddings [N, P] that PyTorch gives."""
    from components.encoders import from_pretrained

    register_small_encoder()
    return from_pretrained(built_root() / "artifacts/pretrain/encoder").embed_reports(texts).numpy()
