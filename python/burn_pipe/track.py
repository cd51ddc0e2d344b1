"""Tells an experiment tracker of runs: ``python -m burn_pipe.track mlflow RUN_FOLDER``.

MLflow, Weights & Biases (``wandb``) and Trackio (``trackio``), each by its own package, which must be
installed. As a hook it is told of the run on its standard input::

    on:
      epoch_end: [python3, -m, burn_pipe.track, mlflow]
      end: [python3, -m, burn_pipe.track, mlflow]

It sends what the tracker does not have yet: settings, metrics by optimizer step, pictures, and how the run
ended. A run that is resumed, extended or sent twice is one run there, and no metric of it stands there twice.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

METRICS = "logs/metrics.jsonl"
PICTURES = "samples"
#: Columns of a line of metrics that are none.
COLUMNS = ("step", "epoch", "wall_time")


@dataclasses.dataclass
class Run:
    """A run's folder, with its metadata."""

    folder: pathlib.Path
    metadata: dict[str, Any]

    @classmethod
    def open(cls, folder: pathlib.Path) -> Run:
        try:
            metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise SystemExit(f"{folder} is no run: {error}") from error
        return cls(folder.resolve(), metadata)

    @property
    def project(self) -> pathlib.Path:
        """The folder that holds ``.pipe``, or the run's own parent."""
        above = (folder for folder in self.folder.parents if (folder / ".pipe").is_dir())
        return next(above, self.folder.parent)

    @property
    def name(self) -> str:
        """What people call it: stage and number."""
        return f"{self.metadata['stage']}-{self.metadata['run_number']:03}"

    @property
    def key(self) -> str:
        """Tells it from every other run, also one of the same number that was made in its place."""
        what = [str(self.folder), self.metadata["identity"], self.metadata["created_at"]]
        return hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the run's result, by key."""
        manifest: dict[str, Any] = self.metadata["manifest"]
        return manifest

    def lines(self) -> Iterator[dict[str, Any]]:
        """The metrics that were written so far; a last line that a crash cut off is left out."""
        with contextlib.suppress(FileNotFoundError), open(self.folder / METRICS, encoding="utf-8") as file:
            for text in file:
                if text.endswith("\n"):
                    yield json.loads(text)

    def pictures(self) -> list[pathlib.Path]:
        return sorted((self.folder / PICTURES).glob("*.png"))


@dataclasses.dataclass
class Sent:
    """What a tracker has of a run. Kept in ``.pipe/trackers``."""

    #: The tracker's own name of the run.
    id: str | None = None
    #: The newest step of which lines were sent, and how many of its lines were.
    step: int = -1
    lines: int = 0
    pictures: int = 0
    status: str | None = None

    @classmethod
    def load(cls, path: pathlib.Path) -> Sent:
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, path: pathlib.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        os.replace(beside, path)


class Tracker(Protocol):
    """An open run of a tracker."""

    #: The tracker's own name of it.
    id: str

    def metrics(self, lines: list[dict[str, Any]]) -> None: ...

    def picture(self, path: pathlib.Path, step: int) -> None: ...

    def close(self, status: str) -> None: ...


class Mlflow:
    """See mlflow.MlflowClient."""

    def __init__(self, run: Run, project: str, known: str | None) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag

        self.client = MlflowClient()
        if known is not None:
            self.id = known
            return
        experiment = self.client.get_experiment_by_name(project)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(project)
        made = self.client.create_run(experiment_id, run_name=run.name)
        self.id = made.info.run_id
        params = [Param(key, json.dumps(value)[:6000]) for key, value in run.settings.items()]
        tags = {"pipe.identity": run.metadata["identity"], "pipe.folder": str(run.folder)}
        for begin in range(0, len(params), 100):
            self.client.log_batch(self.id, params=params[begin : begin + 100])
        self.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def metrics(self, lines: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        all_of = [
            Metric(name, value, int(line["wall_time"] * 1000), line["step"])
            for line in lines
            for name, value in values(line).items()
        ]
        for begin in range(0, len(all_of), 1000):
            self.client.log_batch(self.id, metrics=all_of[begin : begin + 1000])

    def picture(self, path: pathlib.Path, step: int) -> None:
        self.client.log_artifact(self.id, str(path), PICTURES)

    def close(self, status: str) -> None:
        words = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
        if status in words:
            self.client.set_terminated(self.id, words[status])
        else:
            self.client.update_run(self.id, "RUNNING")


class Wandb:
    """See wandb.init. Without a network: ``WANDB_MODE=offline``, and ``wandb sync`` later."""

    def __init__(self, run: Run, project: str, known: str | None) -> None:
        import wandb

        self.wandb = wandb
        self.id = known or run.key
        self.run = wandb.init(
            project=project, id=self.id, name=run.name, config=run.settings, resume="allow", dir=str(run.project)
        )

    def metrics(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            self.run.log({**values(line), "epoch": line["epoch"]}, step=line["step"])

    def picture(self, path: pathlib.Path, step: int) -> None:
        self.run.log({PICTURES: self.wandb.Image(str(path))}, step=step)

    def close(self, status: str) -> None:
        self.run.summary["status"] = status
        self.run.finish(exit_code=1 if status == "failed" else 0)


class Trackio:
    """See trackio.init. It keeps runs on this machine, in ``TRACKIO_DIR``."""

    def __init__(self, run: Run, project: str, known: str | None) -> None:
        import trackio

        self.trackio = trackio
        self.id = known or f"{run.name}-{run.key[:8]}"
        trackio.init(project=project, name=self.id, config=run.settings, resume="allow", embed=False)

    def metrics(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            self.trackio.log({**values(line), "epoch": line["epoch"]}, step=line["step"])

    def picture(self, path: pathlib.Path, step: int) -> None:
        self.trackio.log({PICTURES: self.trackio.Image(str(path))}, step=step)

    def close(self, status: str) -> None:
        self.trackio.finish()


#: What opens a run by its folder, the project there, and the name that the tracker gave it before.
TRACKERS: dict[str, Callable[[Run, str, str | None], Tracker]] = {"mlflow": Mlflow, "wandb": Wandb, "trackio": Trackio}


def values(line: dict[str, Any]) -> dict[str, float]:
    """The metrics of a line."""
    return {name: value for name, value in line.items() if name not in COLUMNS}


def new_lines(run: Run, sent: Sent) -> list[dict[str, Any]]:
    """The lines that were not sent. What a resumed training computes again is the same, and is left out."""
    found, step, count = [], -1, 0
    for line in run.lines():
        count = count + 1 if line["step"] == step else 1
        step = line["step"]
        if (step, count) > (sent.step, sent.lines):
            found.append(line)
            sent.step, sent.lines = step, count
    return found


def send(run: Run, tracker: str, project: str | None = None) -> str:
    """Sends what is new of a run; the tracker's name of it. ``project``: the pipeline's name if unset."""
    path = run.project / ".pipe" / "trackers" / tracker / f"{run.key}.json"
    sent = Sent.load(path)
    before = dataclasses.replace(sent)
    lines, pictures = new_lines(run, sent), run.pictures()
    status = run.metadata["status"]
    if before.id is not None and not lines and len(pictures) == sent.pictures and status == sent.status:
        return before.id
    opened: Tracker = TRACKERS[tracker](run, project or run.metadata["pipeline"], before.id)
    sent.id = opened.id
    opened.metrics(lines)
    for picture in pictures[before.pictures :]:
        opened.picture(picture, max(sent.step, 0))
    opened.close(status)
    sent.pictures, sent.status = len(pictures), status
    sent.save(path)
    return opened.id


def told_of() -> list[pathlib.Path]:
    """The run of the event on standard input; of a pipeline's end there is none."""
    if sys.stdin.isatty():
        raise SystemExit("name the folder of a run, or call this in a hook")
    folder = json.load(sys.stdin).get("run_folder")
    return [pathlib.Path(folder)] if folder else []


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m burn_pipe.track", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tracker", choices=sorted(TRACKERS))
    parser.add_argument("runs", nargs="*", type=pathlib.Path, metavar="RUN_FOLDER")
    parser.add_argument("--project", help="its name there; the pipeline's if unset")
    read = parser.parse_args(arguments)
    for folder in read.runs or told_of():
        try:
            print(f"{folder}: {send(Run.open(folder), read.tracker, read.project)}")
        except ModuleNotFoundError as error:
            raise SystemExit(f"{error}: pip install {read.tracker}") from error


if __name__ == "__main__":
    main()
