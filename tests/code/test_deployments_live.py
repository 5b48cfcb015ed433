"""Every deployment on a real Prefect server and worker: work, refusal, nothing to do, kill and resume, one training."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.environment import LOCAL_API, TRAINING_LIMIT
from tests.code.test_flows_supervise import alive, wait_for
from tests.pipeline_support import copy_project, outputs, python, set_parameter, variables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
STEPS = 30


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    """A copy of the project with its server and worker."""

    root: Path
    api: str

    def ask(self, path: str, body: Any = None) -> Any:
        """POST to the Prefect API."""
        request = urllib.request.Request(
            f"{self.api}/{path}",
            data=json.dumps(body or {}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def start(self, deployment: str, **parameters: Any) -> subprocess.Popen[str]:
        """`prefect deployment run DEPLOYMENT --watch`, not waited for."""
        chosen = [
            word for key, value in parameters.items() for word in ("--param", f"{key}={json.dumps(value)}")
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", "deployment", "run", deployment, "--watch", *chosen],
            cwd=self.root,
            env=variables(self.root),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, deployment: str, **parameters: Any) -> tuple[int, str]:
        """Run a deployment to its end; returns the exit code and what was printed."""
        process = self.start(deployment, **parameters)
        printed, _ = process.communicate(timeout=2400)
        return process.returncode, printed

    def last_run(self) -> dict[str, Any]:
        """The newest flow run."""
        began = {"flow_runs": {"start_time": {"is_null_": False}}}  # scheduled runs have not
        runs: list[dict[str, Any]] = self.ask(
            "flow_runs/filter", {**began, "sort": "START_TIME_DESC", "limit": 1}
        )
        return runs[0]

    def log(self, flow_run: str) -> str:
        """What a flow run logged."""
        wanted = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        lines, page = [], 0
        while entries := self.ask("logs/filter", {**wanted, "offset": page}):
            lines += [entry["message"] for entry in entries]
            page += len(entries)
        return "\n".join(lines)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A copy of the project, up; `pretrain/full` ran once."""
    root = copy_project(tmp_path_factory.mktemp("site"), {"pretrain.checkpoint_every_steps": 2})
    port = free_port()
    code, printed = python(root, "-m", "flows", "up", "--port", str(port))
    assert code == 0, printed
    try:
        made = Site(root, LOCAL_API.format(port=port))
        code, printed = made.run("pretrain/full")
        assert code == 0, printed[-3000:] + made.log(made.last_run()["id"])[-3000:]
        yield made
    finally:
        code, printed = python(root, "-m", "flows", "down")
        assert code == 0, printed
        assert not (root / "prefect.toml").exists()


def test_the_chain_ends_in_a_bento_and_shows_its_artifacts(site: Site) -> None:
    assert json.loads((site.root / "artifacts/package/bento.json").read_text())["tag"]
    keys = {artifact["key"] for artifact in site.ask("artifacts/filter", {"limit": 200})}
    assert {
        "check-cohort",
        "check-cohort-page",
        "check-reports",
        "check-volumes",
        "pretrain-curves",
        "progress-pretrain",
        "evaluate-retrieval",
        "evaluate-segmentation",
        "gate-verdict",
        "report",
    } <= keys
    runs = site.ask("task_runs/filter", {"limit": 200})
    assert {"ingest", "pretrain", "finetune@segmentation", "package"} <= {run["name"] for run in runs}


def test_a_second_run_of_the_deployment_does_nothing(site: Site) -> None:
    before = outputs(site.root)
    code, printed = site.run("pretrain/full")
    assert code == 0, printed[-3000:]
    log = site.log(site.last_run()["id"])
    assert " ran because" not in log
    assert log.count("did not run: nothing that it depends on changed") >= 18
    assert outputs(site.root) == before


def test_retraining_where_nothing_changed_is_no_run(site: Site) -> None:
    code, printed = site.run("retrain/weekly")
    assert code == 0, printed[-3000:]
    run = site.last_run()
    assert "nothing changed since the last run: no retraining" in site.log(run["id"])
    assert len(site.ask("task_runs/filter", _of(run))) == 1


def _of(run: dict[str, Any]) -> dict[str, Any]:
    return {"flow_runs": {"id": {"any_": [run["id"]]}}, "limit": 200}


def test_finetune_and_evaluate_run_their_part(site: Site) -> None:
    before = outputs(site.root)
    params = (site.root / "params.yaml").read_bytes()
    code, printed = site.run("finetune/full", overrides={"finetune.segmentation.steps": 5})
    assert code == 0, printed[-3000:]
    after = outputs(site.root)
    changed = {path for path in after if after[path] != before[path]}
    assert "artifacts/finetune/segmentation" in changed
    assert all(path.startswith(("artifacts/finetune/", "artifacts/evaluate/")) for path in changed), changed
    assert (site.root / "params.yaml").read_bytes() == params
    code, printed = site.run("evaluate/full")
    assert code == 0, printed[-3000:]
    assert "gate" in {task["name"] for task in site.ask("task_runs/filter", _of(site.last_run()))}


def test_a_shut_gate_fails_the_flow_with_its_reason_and_lets_nothing_out(site: Site) -> None:
    champion = (site.root / "infra/champion.json").read_bytes()
    rule = {"min": 0.99, "max": None, "above_chance": False, "higher_is_better": True, "max_drop": None}
    code, _ = site.run(
        "release/full", overrides={"gate.rules": {"segmentation.mean_dice": {**rule, "must_improve": False}}}
    )
    assert code != 0
    run = site.last_run()
    assert run["state"]["type"] == "FAILED"
    assert "segmentation.mean_dice" in run["state"]["message"] + site.log(run["id"])
    assert "package" not in {task["name"] for task in site.ask("task_runs/filter", _of(run))}
    assert (site.root / "infra/champion.json").read_bytes() == champion


def test_release_promotes_and_retraining_then_has_nothing_to_train(site: Site) -> None:
    code, printed = site.run("pretrain/full")
    assert code == 0, printed[-3000:]
    code, printed = site.run("release/full")
    assert code == 0, printed[-3000:]
    champion = json.loads((site.root / "infra/champion.json").read_text())
    assert len(champion["champion"]["model_sha256"]) == 64
    weights = outputs(site.root)["artifacts/pretrain"]
    for _ in range(2):
        code, printed = site.run("retrain/weekly")
        assert code == 0, printed[-3000:]
        assert outputs(site.root)["artifacts/pretrain"] == weights
    assert "nothing changed since the last run" in site.log(site.last_run()["id"])


def test_retraining_where_a_parameter_changed_trains_and_promotes(site: Site) -> None:
    before = json.loads((site.root / "infra/champion.json").read_text())["champion"]["model_sha256"]
    set_parameter(site.root, "pretrain.seed", 11)
    set_parameter(site.root, "gate.rules", {"segmentation.mean_dice": {"min": 0.0}})
    code, printed = site.run("retrain/weekly")
    assert code == 0, printed[-3000:] + site.log(site.last_run()["id"])[-2000:]
    after = json.loads((site.root / "infra/champion.json").read_text())["champion"]["model_sha256"]
    assert after != before


def test_kill_9_of_a_flow_leaves_no_orphan_and_the_next_run_resumes(site: Site) -> None:
    longer = {"pretrain.num_steps": STEPS, "pretrain.seed": 23}
    process = site.start("pretrain/full", overrides=longer)
    progress = site.root / "logs" / "pretrain.progress.json"

    def trained() -> bool:
        try:
            state = json.loads(progress.read_text())
        except (OSError, ValueError):
            return False
        return bool(state["total"] == STEPS and state["done"] >= 4)

    assert wait_for(trained, 300), "training never began"
    flow_processes = [pid for pid in _processes(site.root) if "prefect.engine" in _command(pid)]
    stage_processes = [
        pid for pid in _processes(site.root) if "components.pretraining.pretrain" in _command(pid)
    ]
    assert flow_processes
    assert stage_processes
    for pid in flow_processes:
        os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not any(map(alive, stage_processes)), 60), "an orphan still trains"
    process.kill()
    process.wait(30)
    code, printed = site.run("pretrain/full", overrides=longer)
    log = site.log(site.last_run()["id"])
    assert code == 0, printed[-3000:] + log[-2000:]
    assert "goes on after step" in log
    assert log.count("did not run: nothing that it depends on changed") >= 7


def _processes(root: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"VELVET_ROOT={root}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_one_training_at_a_time_on_a_server(site: Site) -> None:
    limit = {"names": [TRAINING_LIMIT], "slots": 1, "mode": "concurrency"}
    assert site.ask("v2/concurrency_limits/increment", limit)
    try:
        process = site.start("finetune/full", overrides={"finetune.segmentation.steps": 6})
        time.sleep(45)
        assert process.poll() is None, "it did not wait for the slot"
        assert not [pid for pid in _processes(site.root) if "downstream.finetune" in _command(pid)]
    finally:
        site.ask("v2/concurrency_limits/decrement", {**limit, "occupancy_seconds": 1.0})
    printed, _ = process.communicate(timeout=2400)
    assert process.returncode == 0, printed[-3000:]


def test_down_ends_the_runs_under_way_too(site: Site) -> None:
    process = site.start("pretrain/full", overrides={"pretrain.num_steps": 400, "pretrain.seed": 31})
    wanted = "components.pretraining.pretrain"
    assert wait_for(lambda: any(wanted in _command(pid) for pid in _processes(site.root)), 300)
    members = [pid for pid in _processes(site.root) if "engine" in _command(pid) or wanted in _command(pid)]
    assert b"num_steps: 400" in (site.root / "params.yaml").read_bytes()
    code, printed = python(site.root, "-m", "flows", "down")
    assert code == 0, printed
    assert "stopped the runs under way" in printed
    assert wait_for(lambda: not any(map(alive, members)), 10)
    process.kill()
    process.communicate()
    assert b"num_steps: 400" not in (site.root / "params.yaml").read_bytes()
