"""One of each part, added in a package outside the tree, goes through the whole chain; nothing is edited."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from components.base.stages import STAGES
from tests.conftest import ROOT

PARTS = {
    "cohort/sources/boxes.py": """
        from dataclasses import dataclass
        import numpy as np
        from components.base.config import Config
        from components.base.volume_files import write_nifti
        from components.cohort.sources import SOURCES
        from components.cohort.study import Mask, RawSeries, Source

        @dataclass(frozen=True)
        class Box(RawSeries):
            def write(self, volume, masks, stem):
                number = int(self.patient)
                generator = np.random.default_rng(number)
                hu = np.full((40, 40, 40), -1000, np.int16)
                hu[6:34, 6:34, 4:36] = generator.integers(20, 60, (28, 28, 32))
                for low in generator.integers(4, 30, (12, 3)):
                    x, y, z = low
                    hu[x:x + 9, y:y + 9, z:z + 9] = generator.choice([-900, 60, 300])
                label = np.zeros(hu.shape, np.uint8)
                at = 8 + number % 12
                hu[at:at + 8, 10:18, 12:26] = -700 if self.labels["Emphysema"] else 400
                label[at:at + 8, 10:18, 12:26] = 1
                affine = np.diag([8.0, 8.0, 8.0, 1.0])
                write_nifti(hu, affine, volume)
                path = masks / f"{stem}.organs.nii.gz"
                write_nifti(label, affine, path)
                return [Mask("organs", path, {1: "box"})]

        @SOURCES.register("boxes")
        class Boxes(Source):
            class Params(Config):
                number: int

            def series(self):
                for n in range(self.params.number):
                    words = " ".join(f"finding{(n * k) % 97}" for k in range(1, 26))
                    sick = n % 2
                    said = "There is emphysema." if sick else "There is no emphysema."
                    yield Box(patient=str(n), study=f"s{n}", series=f"r{n}", provenance="synthetic",
                              report=f"FINDINGS: {said} {words}.\\nIMPRESSION: {said}\\n",
                              sex="F", age_years=50, labels={"Emphysema": sick})
    """,
    "encoders/vision/pyramid.py": """
        from torch import nn
        from torch.nn import functional as F
        from components.base.config import Config
        from components.encoders.features import VolumeFeatures
        from components.encoders.interfaces import VisionEncoder
        from components.encoders.vision import VISION

        @VISION.register("pyramid")
        class Pyramid(VisionEncoder):
            class Params(Config):
                width: int = 4

            def __init__(self, params):
                super().__init__()
                self.channels = tuple(params.width * 2 ** n for n in range(5))
                self.embed_dim = self.channels[-1]
                sizes = (1, *self.channels)
                self.steps = nn.ModuleList(nn.Conv3d(a, b, 2, 2) for a, b in zip(sizes, sizes[1:]))

            def forward(self, volume):
                scales = []
                for step in self.steps:
                    volume = F.gelu(step(volume))
                    scales.append(volume)
                return VolumeFeatures(tuple(scales), volume.mean((2, 3, 4)))
    """,
    "encoders/text/bag.py": """
        import torch
        from torch import nn
        from components.base.config import Config
        from components.encoders.features import TextFeatures
        from components.encoders.interfaces import TextEncoder
        from components.encoders.text import TEXT

        @TEXT.register("bag")
        class Bag(TextEncoder):
            class Params(Config):
                hidden: int = 16

            def __init__(self, params, vocab_size):
                super().__init__()
                self.hidden_size, self.vocab_size, self.max_positions = params.hidden, vocab_size, 256
                self.embedding = nn.Embedding(vocab_size, params.hidden)

            def forward(self, batch):
                hidden = self.embedding(batch.input_ids)
                mask = batch.attention_mask.bool()
                weights = mask[..., None].to(hidden.dtype)
                report = (hidden * weights).sum(1) / weights.sum(1)
                return TextFeatures(hidden, report, report[:, None], torch.ones_like(mask[:, :1]), hidden, mask)

            def multimodal(self, hidden, batch, image_tokens):
                return hidden + image_tokens.mean(1, keepdim=True)
    """,
    "objectives/unit_norm.py": """
        from torch import nn
        from components.base.config import Config
        from components.objectives import OBJECTIVES

        @OBJECTIVES.register("unit_norm")
        class UnitNorm(nn.Module):
            needs = frozenset({"volume"})

            class Params(Config):
                weight: float

            def __init__(self, params, model):
                super().__init__()
                self.params = params

            def forward(self, batch, features):
                pooled = features.volume("global").pooled
                return {"unit_norm": (pooled.norm(dim=-1) - 1).square().mean()}
    """,
    "downstream/tasks/mean_volume.py": """
        from components.base.config import Config
        from components.base.files import write_json
        from components.downstream.tasks import TASKS

        @TASKS.register("mean_volume")
        class MeanVolume:
            class Params(Config):
                split: str

            @staticmethod
            def fit(params, inputs, context):
                store = inputs.store()
                rows = inputs.studies(params.split)
                means = {row.study_key: float(store.read(row.series_key).mean()) for row in rows}
                write_json(context.out / "means.json", means)
                return {"num_studies": len(means)}
    """,
    "evaluation/protocols/spread.py": """
        from components.base.config import Config
        from components.evaluation.protocols import PROTOCOLS

        @PROTOCOLS.register("spread")
        class Spread:
            class Params(Config):
                unit: str

            @staticmethod
            def evaluate(params, inputs, context):
                rows = [row.study_key for row in inputs.studies("test")]
                spread = float(inputs.embeddings().rows(rows).std())
                return {"spread": {"value": spread, "low": spread - 1.0, "high": spread + 1.0, "chance": 0.0,
                                   "n": len(rows), "n_patients": len(rows), "unit": params.unit}}
    """,
}


def tree_state() -> str:
    """A digest of every file of the tree that git knows or would know."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    digest = hashlib.sha256()
    for name in sorted(listed):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            digest.update(name.encode() + hashlib.sha256((ROOT / name).read_bytes()).digest())
    return digest.hexdigest()


def parameters() -> dict[str, object]:
    """params.yaml as it is in the tree, with the scratch package's parts in place of the embedded ones."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["ingest"]["root"] = "archive"
    values["ingest"]["sources"] = [{"source": "boxes", "path": ".", "site": "", "options": {"number": 20}}]
    contract = values["preprocess"]["contract"]
    contract["spacing_mm"], contract["size"] = [10.0, 10.0, 10.0], [32, 32, 32]
    pretrain = values["pretrain"]
    pretrain["vision"] = {"name": "pyramid", "width": 4}
    pretrain["text"] = {"name": "bag", "hidden": 16}
    pretrain["objectives"] = {
        "report_contrast": {"weight": 1.0, "label_smoothing": 0.1},
        "unit_norm": {"weight": 0.1},
    }
    pretrain |= {
        "crop_size": [16, 16, 16],
        "batch_size": 4,
        "num_steps": 3,
        "warmup_steps": 0,
        "num_threads": 1,
    }
    pretrain |= {"validate_every_steps": 3, "checkpoint_every_steps": 3}
    values["finetune"] = {"mean_volume": {"split": "test"}}
    values["evaluate"] = {"spread": {"unit": "1"}}
    rule = {"min": 0.0, "max": None, "above_chance": False, "higher_is_better": True}
    values["gate"]["rules"] = {"spread.spread": {**rule, "max_drop": None, "must_improve": False}}
    values["package"]["bento"] = False
    return values


def test_one_of_each_part_without_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree_state()
    package = tmp_path / "scratch"
    for name, text in PARTS.items():
        path = package / "my_parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        for folder in path.relative_to(package).parents:
            if str(folder) != ".":
                (package / folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("VELVET_PLUGINS", "my_parts")
    root = tmp_path / "root"
    (root / "archive").mkdir(parents=True)
    (root / "infra").mkdir()
    (root / "infra" / "champion.json").write_text('{"champion": null}\n')
    (root / "params.yaml").write_text(yaml.safe_dump(parameters()))
    for stage in STAGES:
        step = importlib.import_module(stage.module).STEP
        item = {"finetune": ["--task", "mean_volume"], "evaluate": ["--protocol", "spread"]}.get(
            stage.name, []
        )
        assert step.main(["--root", str(root), "--debug", *item]) == 0, stage.name
    curves = (root / "artifacts/pretrain/curves.csv").read_text()
    assert "unit_norm" in curves
    verdict = json.loads((root / "artifacts/gate/verdict.json").read_text())
    assert verdict["passed"]
    assert (root / "artifacts/package/onnx/volume_encoder.onnx").stat().st_size > 1000
    assert tree_state() == before, "no file of the tree was edited"
