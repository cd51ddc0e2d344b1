"""`job` without `pipe`: checkpoints in a folder of its own, and on from there."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from burn_pipe import Job, JobError
from fake_pipe import content, environment
from test_job import LOOP, script

ALONE = LOOP.replace("job.epochs()", "job.epochs(int(sys.argv[1]))")


def start(program: str, folder: Path, epochs: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, program, str(epochs)], env=environment(), cwd=folder, text=True,
        capture_output=True, timeout=100,
    )


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_and_the_best_are_kept(tmp_path):
    job = Job({}, tmp_path / "own")
    for epoch in job.epochs(4):
        path = job.save(lambda path: path.write_text(f"{epoch}"), {"loss": [3, 1, 2, 2][epoch - 1]})
        assert path == tmp_path / "own" / f"epoch_{epoch:03}.ckpt"
    assert listing(tmp_path / "own") == [
        "epoch_002.ckpt", "epoch_004.ckpt", "lock", "scratch", "state.json"
    ]


def test_a_metric_of_an_epoch_that_is_not_finite_is_left_out(tmp_path, capfd):
    job = Job({}, tmp_path / "own")
    for _ in job.epochs(1):
        job.save(lambda path: path.write_text("x"), {"val_loss": float("nan"), "loss": 1.0})
    state = json.loads((tmp_path / "own" / "state.json").read_text())
    assert state["newest"]["metrics"] == {"loss": 1.0}
    assert "val_loss is no finite number" in capfd.readouterr().err


def test_it_says_where_and_goes_on(tmp_path):
    program = script(tmp_path, ALONE)
    first = start(program, tmp_path, 2)
    assert first.returncode == 0
    assert "no PIPE_JOB" in first.stderr and "checkpoints/train" in first.stderr
    second = start(program, tmp_path, 6)
    assert "going on after epoch 2" in second.stderr
    (tmp_path / "whole").mkdir()
    assert start(program, tmp_path / "whole", 6).returncode == 0
    last = Path("checkpoints/train/epoch_006.ckpt")
    assert content(tmp_path / last) == content(tmp_path / "whole" / last)
    before = content(tmp_path / "checkpoints/train/state.json")
    assert start(program, tmp_path, 6).returncode == 0
    assert content(tmp_path / "checkpoints/train/state.json") == before


def test_an_epoch_without_a_report_counts_as_one_step(tmp_path):
    def position(job: Job) -> tuple[int, int, int]:
        state = json.loads((tmp_path / "own/state.json").read_text())["newest"]
        assert state["step"] == job.step
        return state["epoch"], state["step"], state["step_in_epoch"]

    job = Job({}, tmp_path / "own")
    for _ in job.epochs(2):
        job.save(lambda path: path.write_text("weights"))
    assert position(job) == (2, 2, 0)
    next(job.epochs(3))
    job.save(lambda path: path.write_text("weights"), step_in_epoch=3)
    assert position(job) == (2, 5, 3)
    job._begun[1].__self__._lock.close()
    again = Job({}, tmp_path / "own")
    assert (again.done, again.step, again.step_in_epoch) == (2, 5, 3)
    for _ in again.epochs(4):
        again.save(lambda path: path.write_text("weights"))
    assert position(again) == (4, 6, 0)


def test_without_a_number_of_epochs_it_says_what_to_write(tmp_path):
    with pytest.raises(JobError, match=r"job.epochs\(20\)"):
        next(Job({}, tmp_path / "own").epochs())


def test_a_second_process_is_held_back(tmp_path):
    first = Job({}, tmp_path / "own")
    assert first.done == 0
    with pytest.raises(JobError, match="another process trains"):
        Job({}, tmp_path / "own").done


def test_a_damaged_state_is_told(tmp_path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(JobError, match="to begin anew"):
        Job({}, tmp_path).done


def test_sigterm_saves_the_epoch_and_ends_well(tmp_path):
    slow = "for _ in range(4):\n        __import__('time').sleep(0.05)"
    program = script(tmp_path, ALONE.replace("for _ in range(4):", slow))
    child = subprocess.Popen(
        [sys.executable, program, "1000"], env=environment(), cwd=tmp_path, stderr=subprocess.PIPE
    )
    state = tmp_path / "checkpoints/train/state.json"
    until(state.exists)
    child.terminate()
    assert child.wait(20) == 0
    done = json.loads(state.read_text())["newest"]["epoch"]
    assert (tmp_path / f"checkpoints/train/epoch_{done:03}.ckpt").exists()


def test_killed_again_and_again_it_ends_in_the_bytes_of_one_go(tmp_path):
    text = ALONE.replace("repr(state)", "repr(state) + ' ' * 3_000_000")
    text = text.replace("job.start.read_text()", "job.start.read_text().strip()")
    program = script(tmp_path, text)
    (tmp_path / "whole").mkdir()
    assert start(program, tmp_path / "whole", 300).returncode == 0
    chance = random.Random(7)
    folder = tmp_path / "killed"
    folder.mkdir()
    kills = 0
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, program, "300"], env=environment(), cwd=folder,
            stderr=subprocess.DEVNULL,
        )
        try:
            child.wait(chance.uniform(0.1, 0.3))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
    assert start(program, folder, 300).returncode == 0
    last = Path("checkpoints/train/epoch_300.ckpt")
    assert kills > 3 and content(folder / last) == content(tmp_path / "whole" / last)


def test_a_kill_between_any_two_changes_of_the_disk_loses_nothing(tmp_path):
    """The process dies at each rename, removal and folder in turn, and goes on afterwards."""
    text = (
        "import os, sys, shutil, pathlib\n"
        "left = int(sys.argv[2])\n"
        "def hook(event, arguments):\n"
        "    global left\n"
        "    if event in ('os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'shutil.rmtree'):\n"
        "        left -= 1\n"
        "        if left == 0: os._exit(9)\n"
        "sys.addaudithook(hook)\n" + ALONE
    )
    program = script(tmp_path, text)

    def run(folder: Path, at: int) -> int:
        return subprocess.run(
            [sys.executable, program, "2", str(at)], env=environment(), cwd=folder,
            capture_output=True,
        ).returncode

    (tmp_path / "whole").mkdir()
    assert run(tmp_path / "whole", 0) == 0
    last = Path("checkpoints/train/epoch_002.ckpt")
    at = 0
    while True:
        at += 1
        folder = tmp_path / f"at_{at}"
        folder.mkdir()
        code = run(folder, at)
        assert run(folder, 0) == 0
        assert content(folder / last) == content(tmp_path / "whole" / last), at
        if code == 0:
            break
    assert at > 8


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
