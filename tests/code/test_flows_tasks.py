"""Flows and tasks without a server: retries where they help, reasons, contents of artifacts, infrastructure files."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from components.base.errors import GateError
from components.base.stages import STAGES
from flows.artifacts import draw_curves, scalars
from flows.embedded import reason
from flows.reproduce import StageFailed
from flows.resources import render_resources
from flows.tasks import LIMITS, retry_helps, stage_task
from tests.conftest import ROOT


def state_of(error: BaseException) -> SimpleNamespace:
    """A Prefect state that holds an exception."""
    return SimpleNamespace(result=lambda raise_on_failure: error)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StageFailed("ingest", "error: no study", 6, False), False),
        (StageFailed("ingest", "error: full disk", 10, True), True),
        (TimeoutError(), True),
    ],
)
def test_retries_are_for_what_another_try_can_mend(error: BaseException, again: bool) -> None:
    assert retry_helps(stage_task("ingest"), None, state_of(error)) is again


def test_every_stage_has_a_task_with_a_time_limit() -> None:
    for stage in STAGES:
        made = stage_task(stage.name)
        assert made.name == stage.name
        assert made.timeout_seconds
        assert made.timeout_seconds >= 3600
        assert made.retries == LIMITS[stage.name].retries if stage.name in LIMITS else made.retries == 1
    assert stage_task("gate").retries == 0


def test_the_user_reads_the_reason_of_a_failed_flow() -> None:
    gate = GateError("the gate refused the model: too weak", rule="gate.refused", fix="train longer")
    assert reason(gate) == (gate.render(), 7)
    assert reason(StageFailed("split", "error: x\nrule: y\nfix: z", 6, False)) == (
        "error: x\nrule: y\nfix: z",
        6,
    )
    text, code = reason(KeyError("Jane Roe"))
    assert code == 1
    assert "Jane" not in text


def test_deployments_name_flows_that_exist_with_parameters_they_take() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = set()
    for deployment in deployments:
        path, _, function = deployment["entrypoint"].partition(":")
        flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), function)
        names.add(f"{flow.name}/{deployment['name']}")
        assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)
        assert deployment["concurrency_limit"]["limit"] == 1
    wanted = {
        "pretrain/full",
        "pretrain/smoke",
        "finetune/full",
        "evaluate/full",
        "release/full",
        "retrain/weekly",
    }
    assert names == wanted
    weekly = next(item for item in deployments if item["name"] == "weekly")
    assert weekly["schedules"][0]["cron"]


def test_curves_become_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text("step,name,value\n1,rotation,1.4\n2,rotation,1.2\n1,total,5\n2,total,4\n")
    picture = draw_curves(path)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5000
    assert picture == draw_curves(path)


def test_results_are_flattened_for_the_artifact() -> None:
    found = dict(scalars({"success": True, "checks": [{"a": 1}], "counts": {"studies": 3}}))
    assert found == {"success": True, "counts.studies": 3}


def test_resources_of_stages_are_a_table(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ingest.resources.json").write_text(
        '{"wall_s": 2.0, "peak_bytes": 3000000000, "status": "done"}'
    )
    (tmp_path / "logs" / "finetune-probe.resources.json").write_text(
        '{"wall_s": 1.0, "peak_bytes": 1000000000, "status": "done"}'
    )
    table = render_resources(tmp_path)
    assert "finetune-probe" in table
    assert table.splitlines()[-1].split()[-2:] == ["3.0", "3.00"]


def test_compose_names_images_files_and_secrets_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())
    services = compose["services"]
    assert {"database", "prefect", "worker", "triton", "service"} == set(services)
    pinned = (ROOT / "constraints.txt").read_text()
    assert f"prefect=={services['prefect']['image'].split(':')[1].split('-')[0]}" in pinned
    year, month = services["triton"]["image"].split(":")[1].split("-")[0].split(".")
    assert (int(year), int(month)) >= (25, 7)
    for service in services.values():
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert set(service.get("depends_on", {})) <= set(services)
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
    dockerfile = (ROOT / "infra" / "Dockerfile").read_text()
    for line in dockerfile.splitlines():
        if line.startswith("COPY ") and " . " not in f" {line} ":
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line
    assert "USER velvet" in dockerfile
