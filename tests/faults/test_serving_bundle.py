"""A sealed package: any flipped bit, added, removed, renamed or linked file fails the check."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from components.base.errors import IntegrityError
from components.release import bundle


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx/volume_encoder.onnx").write_bytes(bytes(range(64)))
    (folder / "card.md").write_text("# card\n")
    (folder / "empty").write_bytes(b"")
    bundle.seal(folder)
    return folder


def test_an_untouched_package_passes_and_so_does_its_copy(sealed, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(sealed, copy)
    assert bundle.verify(sealed) == bundle.verify(copy)
    assert len(bundle.verify(sealed)) == 64


def test_a_flipped_bit_anywhere_matters(sealed):
    for path in sorted(item for item in sealed.rglob("*") if item.is_file()):
        original = path.read_bytes()
        every = path.name != bundle.MANIFEST  # of the manifest's many bytes one bit each, in turn
        for position in range(len(original)):
            for bit in range(8) if every else (position % 8,):
                flipped = bytearray(original)
                flipped[position] ^= 1 << bit
                path.write_bytes(bytes(flipped))
                with pytest.raises(IntegrityError):
                    bundle.verify(sealed)
        path.write_bytes(original)
    bundle.verify(sealed)


@pytest.mark.parametrize("size", [0, 1, 63])
def test_truncated(sealed, size):
    path = sealed / "onnx/volume_encoder.onnx"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(IntegrityError, match="has other bytes"):
        bundle.verify(sealed)


def test_added(sealed):
    (sealed / "onnx/extra").write_bytes(b"")
    with pytest.raises(IntegrityError, match="onnx/extra was added"):
        bundle.verify(sealed)


def test_removed(sealed):
    (sealed / "empty").unlink()
    with pytest.raises(IntegrityError, match="empty is missing"):
        bundle.verify(sealed)


def test_renamed(sealed):
    (sealed / "card.md").rename(sealed / "Card.md")
    with pytest.raises(IntegrityError):
        bundle.verify(sealed)


def test_swapped_contents(sealed):
    first, second = sealed / "card.md", sealed / "onnx/volume_encoder.onnx"
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    with pytest.raises(IntegrityError):
        bundle.verify(sealed)


@pytest.mark.parametrize("to_folder", [False, True])
def test_a_link_is_refused_even_to_the_same_bytes(sealed, tmp_path, to_folder):
    path = sealed / ("onnx" if to_folder else "card.md")
    moved = tmp_path / "elsewhere"
    path.rename(moved)
    path.symlink_to(moved)
    with pytest.raises(IntegrityError, match=r"package\.plain"):
        bundle.verify(sealed)


def test_a_pipe_is_refused_without_waiting_for_it(sealed):
    os.mkfifo(sealed / "pipe")
    with pytest.raises(IntegrityError, match=r"package\.plain"):
        bundle.verify(sealed)


def test_no_manifest(sealed):
    (sealed / bundle.MANIFEST).unlink()
    with pytest.raises(IntegrityError, match=r"package\.sealed"):
        bundle.verify(sealed)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '{"files": 3}', '{"files": {"../../etc/passwd": {}}}', "\x00\xff"]
)
def test_a_malformed_manifest_is_a_clear_error(sealed, text):
    (sealed / bundle.MANIFEST).write_text(text)
    with pytest.raises(IntegrityError) as caught:
        bundle.verify(sealed)
    assert len(caught.value.render().splitlines()) < 5


def test_a_subset_is_sealed_by_itself(sealed, tmp_path):
    digest = bundle.subset(sealed, tmp_path / "part", ["onnx", "card.md"])
    assert bundle.verify(tmp_path / "part") == digest
    assert not (tmp_path / "part/empty").exists()
