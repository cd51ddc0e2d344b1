"""Runs as experiment trackers have them, each asked by its own package, without a network.

`PIPE_TEST_PROGRAM` is the path of a `pipe`; without it nothing here runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from burn_pipe import track
from test_adapters import needs
from test_diffit import MODEL, pipe

PACKAGE = Path(__file__).parent.parent
RUN = "checkpoints/base_training/run_001"


def pipeline(hooks: str = "") -> str:
    return f"""
name: tiny
stages:
  data:
    {{ kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 32 }}
  base:
    kind: train
    dataset: data
    epochs: 2
    batch_size: 8
    device: cpu
    log_every_n_steps: 1
    sample_every_n_epochs: 1
    model: {MODEL}
    {hooks}
"""


@pytest.fixture()
def project(tmp_path, monkeypatch) -> Path:
    if "PIPE_TEST_PROGRAM" not in os.environ:
        pytest.skip("PIPE_TEST_PROGRAM is not set")
    (tmp_path / "p.yaml").write_text(pipeline())
    for name in ("WANDB_MODE", "WANDB_SILENT"):
        monkeypatch.setenv(name, "offline" if name == "WANDB_MODE" else "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def send(project: Path, tracker: str) -> str:
    """In a process of its own, as a hook does; the tracker's name of the run."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    told = subprocess.run(
        [sys.executable, "-m", "burn_pipe.track", tracker, RUN],
        cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout.strip().splitlines()[-1].split(": ", 1)[1]


def lines(project: Path) -> list[dict]:
    return [json.loads(line) for line in (project / RUN / "logs/metrics.jsonl").read_text().splitlines()]


def losses(project: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["train_loss"]) for line in lines(project) if "train_loss" in line]


def sent_twice_and_extended(project: Path, tracker: str) -> str:
    """Sends a run, once more, and after two further epochs; it is one run there."""
    pipe(project, "run", "p.yaml")
    first = send(project, tracker)
    assert send(project, tracker) == first
    pipe(project, "run", "p.yaml", "--epochs", "4")
    assert send(project, tracker) == first
    assert [step for step, _ in losses(project)] == [4, 8, 12, 16]
    return first


def test_mlflow(project):
    needs("mlflow")
    name = sent_twice_and_extended(project, "mlflow")
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status, run.info.run_name) == (name, "FINISHED", "base-001")
    history = client.get_metric_history(name, "train_loss")
    assert [(point.step, point.value) for point in history] == losses(project)
    assert len(client.get_metric_history(name, "train_loss_step")) == 16
    assert json.loads(run.data.params["batch_size"]) == 8
    pictures = {file.path for file in client.list_artifacts(name, "samples")}
    assert pictures == {f"samples/epoch_{epoch:03}.png" for epoch in range(1, 5)}


def records(file: bytes) -> list[bytes]:
    """What stands in a file of W&B: a head of 7 bytes, then the log format of LevelDB, in blocks of 32 KiB."""
    block, at, found = 32 * 1024, 7, [b""]
    while at + 7 <= len(file):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = int.from_bytes(file[at + 4 : at + 6], "little"), file[at + 6]
        found[-1] += file[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(b"")
    return found[:-1]


def test_wandb(project):
    needs("wandb")
    name = sent_twice_and_extended(project, "wandb")
    from wandb.proto import wandb_internal_pb2

    sent, settings = [], {}
    # One file for each process; `wandb sync` makes one run of those with one name.
    files = sorted((project / "wandb").glob(f"offline-run-*-{name}/*.wandb"))
    assert len(files) == 2
    for file in files:
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            items = {(item.nested_key or [item.key])[0]: item.value_json for item in record.history.item}
            if "train_loss" in items:
                sent.append((int(items["_step"]), json.loads(items["train_loss"])))
            settings.update({item.key: item.value_json for item in record.run.config.update})
    assert sent == losses(project)
    assert json.loads(settings["batch_size"]) == 8


def test_trackio(project):
    needs("trackio")
    name = sent_twice_and_extended(project, "trackio")
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs("tiny") == [name]
    logs = SQLiteStorage.get_logs("tiny", name)
    assert [(log["step"], log["train_loss"]) for log in logs if "train_loss" in log] == losses(project)
    assert SQLiteStorage.get_run_config("tiny", name)["batch_size"] == 8


def test_a_hook_sends_each_epoch(project, monkeypatch):
    needs("mlflow")
    tell = f"[{sys.executable}, -m, burn_pipe.track, mlflow]"
    hooks = f"on: {{ epoch_end: {tell}, end: {tell} }}"
    (project / "p.yaml").write_text(pipeline(hooks))
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE))
    pipe(project, "run", "p.yaml")
    from mlflow import MlflowClient

    (run,) = MlflowClient().search_runs([e.experiment_id for e in MlflowClient().search_experiments()])
    assert run.info.status == "FINISHED"
    history = MlflowClient().get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == losses(project)


class Remembers:
    """A tracker that is a list."""

    sent: list[dict] = []
    closed: list[str] = []

    def __init__(self, run, project, known):
        self.id = known or "one"

    def metrics(self, lines):
        Remembers.sent += lines

    def picture(self, path, step):
        pass

    def close(self, status):
        Remembers.closed.append(status)


def test_no_line_is_sent_twice_wherever_a_run_was_cut_off(tmp_path, monkeypatch):
    """Every length of the file of metrics, cut in a line too; and the training that goes back and on."""
    monkeypatch.setitem(track.TRACKERS, "list", Remembers)
    run = tmp_path / "checkpoints/base/run_001"
    (run / "logs").mkdir(parents=True)
    (tmp_path / ".pipe").mkdir()
    metadata = {"stage": "base", "run_number": 1, "identity": "i", "created_at": "now", "pipeline": "p"}
    written = []
    for step in range(1, 9):
        written.append({"step": step, "epoch": 1, "wall_time": 0.0, "train_loss_step": step / 8})
        if step % 4 == 0:
            written.append({"step": step, "epoch": 1, "wall_time": 0.0, "train_loss": step / 8})
    text = "".join(json.dumps(line) + "\n" for line in written)
    for cut in [*range(0, len(text), 7), 60, *range(100, len(text), 13), len(text)]:
        (run / "metadata.json").write_text(json.dumps({**metadata, "manifest": {}, "status": "running"}))
        (run / "logs/metrics.jsonl").write_text(text[:cut])
        track.send(track.Run.open(run), "list")
    assert Remembers.sent == written


def test_what_is_no_run_is_refused_with_a_word(tmp_path):
    with pytest.raises(SystemExit, match="is no run"):
        track.main(["mlflow", str(tmp_path)])
