"""Converted weights of COLIPRI: every tensor finds its place, and the same inputs give the same outputs.

The reference is what the package itself computed with random weights, kept in tests/golden; where an interpreter
with the package is named in VELVET_COLIPRI_PYTHON (or this one has it), it is computed anew with other weights.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.base.errors import ConfigError, InputError, IntegrityError
from components.encoders import from_pretrained
from components.encoders.convert import CONTRACT, convert, main, renamed
from components.encoders.dense import similarity_maps
from components.encoders.dual import DualEncoder
from components.encoders.features import TextBatch
from components.encoders.pooling import LearnedQueriesPool
from components.encoders.text import TEXT
from components.encoders.tokenization import ReportTokenizer
from components.encoders.vision import VISION
from tests import colipri_reference as reference
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden" / "colipri_tiny.safetensors"
HEADS = {
    "image_heads": reference.HEADS,
    "text_heads": reference.TEXT_HEADS,
    "pool_heads": reference.POOL_HEADS,
}
TOLERANCE = 1e-5


def interpreter() -> str | None:
    named = os.environ.get("VELVET_COLIPRI_PYTHON")
    return named or (sys.executable if importlib.util.find_spec("colipri") else None)


@pytest.fixture(scope="module", params=["golden", "live"])
def expected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    if request.param == "golden":
        return load_file(GOLDEN)
    python = interpreter()
    if python is None:
        pytest.skip("no interpreter with colipri==0.1.3: name one in VELVET_COLIPRI_PYTHON")
    target = tmp_path_factory.mktemp("colipri") / "reference.safetensors"
    command = [python, str(ROOT / "tests" / "colipri_reference.py"), str(target), "5"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return load_file(target)


def weights(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix("weights/"): t for n, t in expected.items() if n.startswith("weights/")}


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    from components.encoders.vocabulary import sentence_markers

    return ReportTokenizer([*reference.VOCAB, *sentence_markers(6)], max_length=20, max_sentences=6)


@pytest.fixture(scope="module")
def encoder(expected: dict[str, Tensor], tokenizer: ReportTokenizer) -> DualEncoder:
    return convert(weights(expected), tokenizer, {"size": (reference.SIZE,) * 3}, **HEADS)


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max())


@torch.no_grad()
def test_image_outputs_are_the_packages(encoder: DualEncoder, expected: dict[str, Tensor]) -> None:
    features = encoder.vision(expected["images"])
    assert error(features.scales[0], expected["direct/tokens"]) < TOLERANCE
    assert error(features.pooled, expected["direct/pooled"]) < TOLERANCE
    assert error(encoder.vision.dense(features.scales), expected["direct/dense"]) < TOLERANCE
    unit = torch.nn.functional.normalize(expected["direct/dense"], dim=1)
    assert error(encoder.dense(expected["images"]), unit) < TOLERANCE
    assert expected["direct/tokens"].std() > 0.1, "the reference is not degenerate"


@torch.no_grad()
def test_windows_are_the_packages(encoder: DualEncoder, expected: dict[str, Tensor]) -> None:
    from components.encoders.dense import windowed

    features = windowed(encoder.vision, expected["wide"], (reference.SIZE,) * 3)
    assert error(features.scales[0], expected["windows/tokens"]) < TOLERANCE
    assert error(features.pooled, expected["windows/pooled"]) < TOLERANCE
    assert error(encoder.vision.dense(features.scales), expected["windows/dense"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("name", ["large", "uneven"])
def test_inputs_of_other_sizes_than_in_training_are_the_packages(
    encoder: DualEncoder, expected: dict[str, Tensor], name: str
) -> None:
    """The package is built anew for each size; `uneven` has three different sides, which tells the axes apart."""
    features = encoder.vision(expected[name])
    assert error(features.scales[0], expected[f"{name}/tokens"]) < TOLERANCE
    assert error(features.pooled, expected[f"{name}/pooled"]) < TOLERANCE


@torch.no_grad()
def test_text_and_zero_shot_are_the_packages(
    encoder: DualEncoder, tokenizer: ReportTokenizer, expected: dict[str, Tensor]
) -> None:
    batch = TextBatch.from_arrays(tokenizer.encode(reference.REPORTS))
    text = encoder.encode_text(batch)
    assert error(text, expected["text"]) < TOLERANCE
    assert error(encoder.project_report(encoder.text(batch)), expected["text"]) < TOLERANCE
    volumes = encoder.encode_volume(expected["images"])
    assert error((volumes @ text.T / encoder.tau).softmax(-1), expected["probabilities"]) < TOLERANCE
    grid = similarity_maps(encoder.dense(expected["images"]), text, encoder.tau)
    assert tuple(grid.shape) == (2, len(text), 4, 4, 4)


@torch.no_grad()
def test_learned_queries_are_the_packages(expected: dict[str, Tensor]) -> None:
    pool = LearnedQueriesPool(reference.PROJECTION, reference.POOL_HEADS)
    state = {n.removeprefix("learned/"): t for n, t in expected.items() if n.startswith("learned/")}
    pool.load_state_dict(state, strict=True)
    assert error(pool.of_grid(expected["direct/dense"]), expected["learned_queries"]) < TOLERANCE


def test_every_tensor_has_one_place(encoder: DualEncoder, expected: dict[str, Tensor]) -> None:
    theirs = weights(expected)
    mine = renamed(theirs)
    assert mine.keys() == encoder.state_dict().keys()
    layers = sum(name.endswith("attention.self.key.weight") for name in theirs)
    assert len(mine) == len(theirs) - 1 - 2 * layers, "without mask_token; key and value are one"
    unused = theirs["image_encoder.backbone.mask_token"].numel()
    assert sum(t.numel() for t in mine.values()) == sum(t.numel() for t in theirs.values()) - unused


def test_the_released_size_has_a_place_for_every_tensor() -> None:
    """Names and shapes that the package gives at its default sizes, against a model made of those shapes alone."""
    from components.encoders.convert import sizes_of
    from components.encoders.dual import skeleton
    from components.encoders.vocabulary import SPECIAL_TOKENS, sentence_markers

    shapes = json.loads((GOLDEN.parent / "colipri_names.json").read_text())
    theirs = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    words = [f"w{number}" for number in range(30_522 - len(SPECIAL_TOKENS))]
    tokenizer = ReportTokenizer([*SPECIAL_TOKENS, *words, *sentence_markers(50)])
    sizes = sizes_of(theirs, 12, 12, 12)
    with torch.device("meta"):
        made = skeleton(**sizes, tokenizer=tokenizer, contract=CONTRACT).state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in renamed(theirs).items()}
    assert found == {name: tuple(tensor.shape) for name, tensor in made.items()}
    for part, defaults in (
        ("vision", VISION.get("primus").Params()),
        ("text", TEXT.get("bert").Params(vocab_rows=30_522)),
    ):
        sizes[part].pop("name")
        assert {key: getattr(defaults, key) for key in sizes[part]} == sizes[part]


@pytest.fixture
def files(expected: dict[str, Tensor], tmp_path: Path) -> tuple[Path, Path]:
    save_file(weights(expected), tmp_path / "model.safetensors")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(reference.VOCAB) + "\n")
    return tmp_path / "model.safetensors", folder


def command(source: Path, tokenizer: Path, target: Path) -> list[str]:
    sizes = {"image-heads": reference.HEADS, "text-heads": reference.TEXT_HEADS}
    sizes["pool-heads"] = reference.POOL_HEADS
    heads = [part for name, count in sizes.items() for part in (f"--{name}", str(count))]
    side = str(reference.SIZE)
    return [
        "--from", str(source), "--tokenizer", str(tokenizer), "--to", str(target),
        "--size", side, side, side, "--positions", "20", *heads,
    ]  # fmt: skip


@torch.no_grad()
def test_the_command_writes_a_folder_that_opens(
    files: tuple[Path, Path], expected: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(*files, tmp_path / "encoder")) == 0
    encoder = from_pretrained(tmp_path / "encoder")
    assert error(encoder.vision(expected["images"]).pooled, expected["direct/pooled"]) < TOLERANCE
    texts = [" ".join(report) for report in reference.REPORTS]
    assert error(encoder.embed_reports(texts), expected["text"]) < TOLERANCE
    assert encoder.contract.output_range == (-1.0, 1.0)
    assert "not for clinical use" in (tmp_path / "encoder" / "card.md").read_text()
    assert "parameters" in capsys.readouterr().out
    assert main(command(*files, tmp_path / "again")) == 0
    for file in (tmp_path / "encoder").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_the_command_refuses_what_is_not_there(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(command(tmp_path / "nothing.safetensors", files[1], tmp_path / "encoder"))
    assert code == InputError.exit_code
    assert "nothing.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda s: s.update(surprise=torch.zeros(1)), IntegrityError),
        (lambda s: s.pop("image_encoder.backbone.eva.blocks.1.norm2.bias"), IntegrityError),
        (lambda s: s.pop("text_encoder.backbone.encoder.layer.1.attention.self.value.bias"), IntegrityError),
        (lambda s: s.pop("text_encoder.backbone.encoder.layer.0.attention.self.key.bias"), IntegrityError),
        (lambda s: s.update({"image_encoder.projector.bias": torch.zeros(3)}), IntegrityError),
        (lambda s: s.update(softmax_temperature=torch.tensor(float("nan"))), IntegrityError),
        (
            lambda s: [s.pop(n) for n in list(s) if n.startswith("text_encoder")],
            InputError,
        ),
    ],
)
def test_other_weights_are_refused(
    expected: dict[str, Tensor], tokenizer: ReportTokenizer, change: object, kind: type[Exception]
) -> None:
    state = weights(expected)
    change(state)  # type: ignore[operator]
    with pytest.raises(kind):
        convert(state, tokenizer, {"size": (reference.SIZE,) * 3}, **HEADS)


@pytest.mark.parametrize("data", [b"", b"\x80\x04\x95cposix\nsystem\n", b"\x10\0\0\0\0\0\0\0{}"])
def test_the_command_refuses_other_files(
    files: tuple[Path, Path], tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    files[0].write_bytes(data)
    assert main(command(*files, tmp_path / "encoder")) == IntegrityError.exit_code
    assert "malformed" in capsys.readouterr().err
    (files[1] / "vocab.txt").unlink()
    assert main(command(*files, tmp_path / "encoder")) in (IntegrityError.exit_code, ConfigError.exit_code)
    assert not (tmp_path / "encoder").exists()


def test_another_vocabulary_is_refused(expected: dict[str, Tensor], tokenizer: ReportTokenizer) -> None:
    from components.encoders.vocabulary import sentence_markers

    other = ReportTokenizer([*reference.VOCAB, "more", *sentence_markers(6)], max_length=20, max_sentences=6)
    with pytest.raises(ConfigError, match="word table"):
        convert(weights(expected), other, {"size": (reference.SIZE,) * 3}, **HEADS)
