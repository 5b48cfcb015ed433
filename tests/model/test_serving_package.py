"""The stage `package`: what it writes, that it is the same twice, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.base.config import parse
from components.base.errors import CheckError, ContractError, GateError, InputError
from components.base.files import read_json, write_json, write_table
from components.release import bundle, card
from serving import bento, export, package
from serving.runtime import Package
from serving.server import launch
from serving.triton.launcher import free_ports
from tests.model import serving_project as project


def params(**changes) -> package.Params:
    values = project.context(project.built_root()).all_params["package"]
    return parse(package.Params, {**values, **changes}, "package")


@pytest.fixture(scope="module")
def out() -> Path:
    return project.built_root() / "artifacts/package"


def test_it_is_sealed_and_opens(out):
    opened = Package.open(out)
    assert opened.seal == bundle.verify(out)
    assert opened.model_hash == bundle.model_hash(out.parent / "pretrain/encoder")
    assert opened.contract.size == project.SIZE


def test_parity_is_measured_on_random_and_real_input_at_each_batch(out):
    report = read_json(out / "onnx/parity.json")
    for rows in report["graphs"].values():
        assert {(row["input"], row["batch"]) for row in rows} == {
            (kind, batch) for kind in ("random", "real") for batch in (1, 2, 3)
        }
        assert all(0 <= row["max_abs_error"] <= 1e-4 for row in rows)


def test_nothing_names_a_path_of_this_machine_or_a_patient(out):
    secrets = [
        str(project.PROJECT),
        str(Path.home()),
        str(out.parent),
        "site-packages",
        "ser_0000",
        "pat_0000",
    ]
    for path in out.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in data], path


def test_the_graphs_hold_no_traces_of_their_source(out):
    import onnx

    for path in out.glob("onnx/*.onnx"):
        graph = onnx.load(path)
        onnx.checker.check_model(graph)
        assert not graph.metadata_props
        assert all(not node.metadata_props and not node.doc_string for node in graph.graph.node)
        assert graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_second_run_gives_the_same_bytes(out, tmp_path):
    root = project.make_root(tmp_path)
    package.STEP.execute(params(), project.context(root))
    assert bundle.verify(root / "artifacts/package") == bundle.verify(out)
    assert (root / "artifacts/package/manifest.json").read_bytes() == (out / "manifest.json").read_bytes()


def test_the_card_tells_metrics_data_contract_use_and_hashes(out):
    text = (out / "card.md").read_text()
    assert "| retrieval | recall_at_1 | 0.750 | 0.500 to 1.000 | 0.250 | 4 | 4 |" in text
    assert "| train | 1 | 1 | 1 | 1 | 1 |" in text
    assert "Not a medical device" in text
    assert "synthetic" in text
    assert bundle.model_hash(out / "encoder")[:12] in text
    for path in out.glob("onnx/*.onnx"):
        assert read_json(out / "manifest.json")["files"][f"onnx/{path.name}"]["sha256"] in text
    assert text == (out / "encoder/card.md").read_text()


def test_a_card_is_not_written_over_a_leak(tmp_path):
    split = pq.read_table(project.built_root() / "artifacts/split/split.parquet").to_pylist()
    leaked = [{**row, "patient_key": "pat_same"} for row in split]
    write_table(tmp_path / "split.parquet", pa.Table.from_pylist(leaked))
    with pytest.raises(CheckError, match=r"card\.leak"):
        card.cohort(tmp_path / "split.parquet")


def test_the_triton_configuration_names_the_graphs_tensors_and_the_model(out):
    text = (out / "triton/volume_encoder/config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in text
    assert "dims: [ 1, 24, 24, 16 ]" in text
    assert "KIND_CPU" in text
    assert bundle.model_hash(out / "encoder") in text
    assert (out / "triton/volume_encoder/1/model.onnx").read_bytes() == (
        out / "onnx/volume_encoder.onnx"
    ).read_bytes()
    for field in re.findall(
        r'name: "(\w+)" data_type', (out / "triton/text_encoder/config.pbtxt").read_text()
    )[:3]:
        assert field in ("input_ids", "token_type_ids", "attention_mask")


def test_without_a_passed_gate_nothing_is_written(tmp_path):
    root = project.make_root(tmp_path)
    verdict = read_json(root / "artifacts/gate/verdict.json")
    write_json(root / "artifacts/gate/verdict.json", {**verdict, "passed": False, "reasons": ["worse"]})
    with pytest.raises(GateError, match="worse"):
        package.STEP.execute(params(), project.context(root))
    (root / "artifacts/gate/verdict.json").unlink()
    with pytest.raises(InputError):
        package.STEP.execute(params(), project.context(root))
    assert not (root / "artifacts/package").exists()


def test_bad_parity_fails_and_keeps_the_package_that_was_there(tmp_path, out, monkeypatch):
    def exported(module, example, path: Path, *, opset: int) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((out / "onnx" / path.name).read_bytes())

    monkeypatch.setattr(export, "export", exported)
    root = project.make_root(tmp_path)
    (root / "artifacts/package").mkdir(parents=True)
    (root / "artifacts/package/old").write_text("kept")
    with pytest.raises(ContractError, match=r"export\.parity"):
        package.STEP.execute(params(max_parity_error=1e-12, bento=False), project.context(root))
    assert [path.name for path in (root / "artifacts/package").iterdir()] == ["old"]
    assert not list((root / "artifacts").glob(".part-*"))


@pytest.mark.parametrize("error", [float("nan"), float("inf"), 2e-4])
def test_parity_that_is_not_a_small_number_fails(error):
    report = {"volume_encoder": [{"max_abs_error": 1e-6}, {"max_abs_error": error}]}
    with pytest.raises(ContractError):
        export.require_parity(report, 1e-4)
    report = {"volume_encoder": [{"max_abs_error": error}, {"max_abs_error": 1e-6}]}
    with pytest.raises(ContractError):
        export.require_parity(report, 1e-4)


def test_the_bento_is_served_by_its_tag(out, tmp_path):
    tag = read_json(out / "bento.json")["tag"]
    variables = bento.environment(project.built_root() / bento.STORE)
    for name in ("VELVET_PACKAGE", "VELVET_TRITON", "PYTHONPATH"):
        variables.pop(name, None)
    listed = subprocess.run(
        [sys.executable, "-m", "bentoml", "list", "--output", "json"],
        capture_output=True,
        text=True,
        env=variables,
        check=True,
        cwd=tmp_path,
    )
    assert tag in [entry["tag"] for entry in json.loads(listed.stdout)]
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)]
    server = launch(command, variables, f"http://127.0.0.1:{port}", tmp_path / "serve.log")
    try:
        server.wait("/readyz", 60)
        answer = httpx.post(f"{server.url}/embed_text", json={"reports": project.REPORTS}).json()
        np.testing.assert_allclose(answer["embeddings"], project.offline_texts(project.REPORTS), atol=1e-5)
        assert answer["model"].startswith(tag.partition(":")[2])
    finally:
        server.stop()


def test_the_bento_brings_its_own_code(out):
    """Every module of the project that the service imports lies inside the Bento."""
    source = out / "bento/src"
    code = (
        "import sys; import serving.service, serving.backends, components.volumes.geometry, "
        "components.volumes.resampling, components.encoders.tokenization, components.base.volume_files\n"
        "from serving.runtime import Package, package_folder\n"
        "Package.open(package_folder())\n"
        "bad = [n for n, m in sys.modules.items() if n.split('.')[0] in ('components', 'serving') "
        "and getattr(m, '__file__', None) and not m.__file__.startswith(sys.argv[1])]\n"
        "assert not bad, bad; assert 'torch' not in sys.modules"
    )
    variables = {
        key: value for key, value in os.environ.items() if key not in ("VELVET_PACKAGE", "PYTHONPATH")
    }
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(source)],
        cwd=source,
        capture_output=True,
        text=True,
        env=variables,
        check=False,
    )
    assert done.returncode == 0, done.stderr
