"""`job` against the engine's side of the contract, in the process and as a program of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from burn_pipe import Job, JobError
from fake_pipe import PACKAGE, FakePipe, content, environment

LOOP = '''
import random
import pathlib, sys
from burn_pipe import job

state = float(job.start.read_text()) if job.start else 0.0
for epoch in job.epochs():
    for _ in range(4):
        state = state * 0.9 + random.random()
        job.report(loss=state)
    job.save(lambda path: path.write_text(repr(state)), {"train_loss": state})
'''


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """A job of this process, and the pipe that it talks to."""
    handler, hook = signal.getsignal(signal.SIGTERM), sys.excepthook

    def make(**settings):
        pipe = FakePipe(tmp_path, **{"target": 3, **settings})
        return pipe, Job(pipe.begin())

    yield make
    signal.signal(signal.SIGTERM, handler)
    sys.excepthook = hook


def write(path: Path) -> None:
    path.write_text("weights")


def script(folder: Path, text: str, name: str = "train.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_the_job_is_what_pipe_says(begin, tmp_path):
    init = str(tmp_path / "base.ckpt")
    pipe, job = begin(settings={"learning_rate": 0.1}, micro_batch_splits=2, devices=[1], init=init)
    assert (job.target, job.unit, job.done, job.step, job.step_in_epoch) == (3, "epoch", 0, 0, 0)
    assert job.settings == {"learning_rate": 0.1} and job.seed == 42
    assert job.micro_batch_splits == 2 and job.devices == (1,) and job.inputs == ("train.py",)
    assert job.start is None and job.init == Path(init)
    assert job.scratch == pipe.run_dir / "scratch" and job.save_every_steps is None
    assert pipe.messages == []


def test_epochs_steps_and_checkpoints_are_told(begin):
    pipe, job = begin()
    epochs = []
    for epoch in job.epochs():
        epochs.append(epoch)
        job.report(loss=0.5)
        job.report(steps=2, step_in_epoch=2, loss=0.25)
        path = job.save(write, {"train_loss": 1.0 / epoch})
        assert path == pipe.checkpoint(epoch) and path.read_text() == "weights"
    assert epochs == [1, 2, 3] and job.done == 3 and job.step == 6
    assert pipe.messages[:4] == [
        {"step": 1, "epoch": 1, "metrics": {"loss": 0.5}, "step_in_epoch": 1},
        {"step": 2, "epoch": 1, "metrics": {"loss": 0.25}, "steps": 2, "step_in_epoch": 2},
        {"epoch": 1, "step": 2, "metrics": {"train_loss": 1.0}},
        {"checkpoint": "checkpoint", "epoch": 1, "step": 2},
    ]


def test_an_epoch_without_a_report_is_told_without_its_step(begin):
    pipe, job = begin(target=2)
    for _ in job.epochs():
        job.save(write)
    assert pipe.messages[:2] == [{"epoch": 1}, {"checkpoint": "checkpoint", "epoch": 1}]
    assert job.step == 2
    pipe.target = 4
    again = Job(pipe.begin())
    assert (again.done, again.step) == (2, 2)
    for epoch in again.epochs():
        if epoch == 4:
            again.report()
        again.save(write)
    assert pipe.of("epoch")[-1] == {"checkpoint": "checkpoint", "epoch": 4, "step": 4}
    assert again.step == pipe.position["step"] == 4


def test_a_checkpoint_inside_an_epoch_without_a_report_counts_from_the_epoch_before(begin):
    pipe, job = begin(target=2)
    epochs = job.epochs()
    next(epochs)
    job.save(write)
    next(epochs)
    job.save(write, step_in_epoch=2)
    job.save(write, step_in_epoch=4)
    assert pipe.messages[-1] == {"checkpoint": "checkpoint", "epoch": 1, "step_in_epoch": 4}
    assert job.step == pipe.position["step"] == 5
    again = Job(pipe.begin())
    assert (again.done, again.step, again.step_in_epoch) == (1, 5, 4)
    for _ in again.epochs():
        again.save(write)
    assert pipe.messages[-1] == {"checkpoint": "checkpoint", "epoch": 2}
    assert again.step == pipe.position["step"] == 5


def test_nothing_is_written_where_the_policy_wants_none(begin):
    pipe, job = begin(every=2)
    written = []
    for epoch in job.epochs():
        job.report()
        job.save(lambda path: written.append(epoch) or write(path))
    assert written == [2, 3]
    assert [message["epoch"] for message in pipe.of("checkpoint")] == [2, 3]


def test_a_path_that_was_written_is_handed_in(begin):
    pipe, job = begin(target=1)
    for _ in job.epochs():
        folder = job.scratch / "state"
        folder.mkdir()
        write(folder / "a")
        job.save(folder)
    assert content(pipe.checkpoint(1)) == {"a": b"weights"}


@pytest.mark.parametrize("bad", ["outside", "nothing", "twice"])
def test_a_save_that_cannot_work_says_why(begin, tmp_path, bad):
    _, job = begin(target=1)
    next(job.epochs())
    with pytest.raises(JobError) as error:
        if bad == "outside":
            write(tmp_path / "x")
            job.save(tmp_path / "x")
        elif bad == "nothing":
            job.save(lambda path: None)
        else:
            job.save(write)
            job.save(write)
    words = {"outside": "not inside job.scratch", "nothing": "wrote nothing"}
    assert words.get(bad, "once an epoch") in str(error.value)


def test_a_stop_ends_after_its_epoch_is_saved(begin):
    pipe, job = begin(stop_at_step=3, every=10)
    for _ in job.epochs():
        for _ in range(2):
            job.report()
        job.save(write)
    assert job.should_stop and job.done == 2
    assert [message["epoch"] for message in pipe.of("checkpoint")] == [2]


def test_a_stop_inside_an_epoch_is_saved_there(begin):
    pipe, job = begin(stop_at_step=3)
    for _ in job.epochs():
        for inside in range(1, 3):
            job.report()
            if job.should_save:
                job.save(write, step_in_epoch=inside)
            if job.should_stop:
                break
        job.save(write)
    inside = {"epoch": 1, "step": 3, "step_in_epoch": 1}
    assert pipe.messages[-1] == {"checkpoint": "checkpoint", **inside}
    again = Job(pipe.begin())
    assert (again.done, again.step, again.step_in_epoch) == (1, 3, 1)


def test_a_checkpoint_inside_an_epoch_where_it_is_asked_for(begin):
    pipe, job = begin(target=1, save_at_step=1)
    for _ in job.epochs():
        for inside in range(1, 4):
            job.report()
            if job.should_save:
                job.save(write, step_in_epoch=inside)
        job.save(write)
    assert [message.get("step_in_epoch") for message in pipe.of("checkpoint")] == [1, None]


def test_a_picture_where_it_is_asked_for(begin):
    pipe, job = begin(target=2, asks_sample=True)
    for _ in job.epochs():
        for _ in range(3):
            job.report()
            if job.should_sample:
                picture = job.scratch / "now.png"
                picture.write_bytes(b"png")
                job.sample(picture)
        job.save(write)
    assert pipe.of("sample") == [{"sample": "now.png", "epoch": 1}]


def test_sigterm_sets_a_flag_and_calls_the_handler_before(begin):
    called = []
    signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    _, job = begin()
    for _ in job.epochs():
        os.kill(os.getpid(), signal.SIGTERM)
        assert job.should_stop
        job.save(write)
    assert job.done == 1 and called == [signal.SIGTERM]


def test_a_finish_ends_the_epochs(begin):
    pipe, job = begin()
    for _ in job.epochs():
        job.save(write)
        job.finish("no gain")
    assert job.done == 1 and pipe.messages[-1] == {"finished": "no gain"}


def test_samples_messages_and_failures(begin):
    pipe, job = begin()
    next(job.epochs())
    (job.scratch / "grid.png").write_bytes(b"png")
    job.sample(job.scratch / "grid.png")
    job.message("a word")
    job.warn("a warning")
    job.fail("not_finite", "loss is nan")
    assert pipe.messages == [
        {"sample": "grid.png", "epoch": 1},
        {"message": "a word"},
        {"warning": "a warning"},
        {"failure": "not_finite", "message": "loss is nan"},
    ]
    assert (pipe.run_dir / "samples" / "epoch_001.png").read_bytes() == b"png"


def test_a_metric_that_is_not_finite_is_left_out_and_told_once(begin):
    pipe, job = begin()
    job.report(loss=float("nan"), rate=0.1)
    job.report(loss=float("inf"))
    assert pipe.of("warning") == [{"warning": "loss is nan at step 1: it is left out"}]
    assert pipe.of("step")[0]["metrics"] == {"rate": 0.1}


def test_a_metric_of_an_epoch_that_is_not_finite_is_told_as_none(begin):
    pipe, job = begin()
    job.save(lambda path: path.write_text("x"), {"loss": 1.0, "val_loss": float("nan")})
    assert pipe.of("epoch")[0]["metrics"] == {"loss": 1.0, "val_loss": None}
    assert not pipe.of("warning")


def test_weights_that_the_program_never_asked_for_are_told_at_the_end(tmp_path):
    def warnings(name: str, asks: str, **job):
        folder = tmp_path / name
        folder.mkdir()
        pipe = FakePipe(folder, **{"target": 2, **job})
        pipe.start(script(folder, f"from burn_pipe import job\n{asks}\n{LOOP}"))
        return [message["warning"] for message in pipe.of("warning")]

    init = str(tmp_path / "weights")
    told = ["`init` is in the pipeline file, and the program never read job.init"]
    assert warnings("unread", "job.seed", init=init) == told
    assert warnings("read", "job.init", init=init) == []
    assert warnings("none", "job.seed") == []
    # One that was stopped on the way may have been about to ask.
    assert warnings("stopped", "job.seed", init=init, target=9, stop_at_step=2) == []


def test_what_pipe_refuses_is_an_error(begin):
    _, job = begin(refuse="step")
    with pytest.raises(JobError, match="no step today"):
        job.report()


def test_a_job_of_another_protocol_or_none_says_what_to_do(tmp_path):
    with pytest.raises(JobError, match="unset PIPE_JOB"):
        Job({"PIPE_JOB": str(tmp_path / "no")}).seed
    (tmp_path / "job").write_text('{"protocol": 2}')
    with pytest.raises(JobError, match="same version"):
        Job({"PIPE_JOB": str(tmp_path / "job")}).seed
    (tmp_path / "job").write_text('{"protocol": 1}')
    with pytest.raises(JobError, match="no job of pipe"):
        Job({"PIPE_JOB": str(tmp_path / "job")}).seed


def test_a_pipe_that_is_gone_is_an_error(begin):
    pipe, job = begin()
    assert job.done == 0
    pipe._listener.close()
    pipe.socket.unlink()
    with pytest.raises(JobError, match="failed to reach pipe"):
        job.report()


@pytest.mark.parametrize("rank", ["RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK"])
def test_ranks_above_zero_say_nothing(begin, rank):
    pipe, _ = begin()
    job = Job({**pipe.begin(), rank: "1"})
    for _ in job.epochs():
        job.report(loss="no number is asked for")
        job.save(write)
        os.kill(os.getpid(), signal.SIGTERM)  # rank 0 hears of a stop, and says so
    assert job.done == 3 and pipe.messages == [] and not job.should_save
    assert not (job.scratch / "checkpoint").exists()


def test_a_rank_above_zero_leaves_why_it_fails(begin):
    pipe, _ = begin()
    job = Job({**pipe.begin(), "RANK": "1"})
    job.fail("command", "the connection to rank 0 was closed")
    left = Path(job._environ["PIPE_JOB"]).parent / ".pipe-failure.json"
    assert not left.exists()
    job.fail("out_of_memory", "no room")
    job.fail("input", "later")
    assert left.read_text() == '{"failure": "out_of_memory", "message": "no room"}'
    assert pipe.messages == []


def test_one_process_agrees_with_itself(begin):
    pytest.importorskip("torch.distributed")
    _, job = begin()
    assert job.agreed(True) and not job.agreed(False)


def test_a_report_takes_less_than_a_millisecond(begin):
    _, job = begin()
    job.report(loss=1.0)
    took = []
    for _ in range(500):
        began = time.perf_counter()
        job.report(loss=1.0, rate=0.1)
        took.append(time.perf_counter() - began)
    median = sorted(took)[250]
    print(f"a report: {median * 1e6:.0f} us")
    assert median < 1e-3


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("raise MemoryError()", "out_of_memory"),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "out_of_memory"),
        ("raise type('OutOfMemoryError', (RuntimeError,), {})('x')", "out_of_memory"),
        ("raise RuntimeError('CUDA error: an illegal memory access')", "device_lost"),
        ("raise FloatingPointError('x')", "not_finite"),
        ("open('/no/such/file')", "input"),
        ("1 / 0", "command"),
    ],
)
def test_an_exception_that_ends_the_program_is_reported(tmp_path, line, kind):
    pipe = FakePipe(tmp_path, target=2)
    text = f"from burn_pipe import job\nfor epoch in job.epochs():\n    {line}\n"
    done = pipe.start(script(tmp_path, text))
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert [message["failure"] for message in pipe.of("failure")] == [kind]


def test_a_resumed_training_ends_in_the_same_bytes(tmp_path):
    whole = FakePipe(tmp_path / "whole", target=6)
    program = script(tmp_path, LOOP)
    assert whole.start(program).returncode == 0
    pieces = FakePipe(tmp_path / "pieces", target=3)
    assert pieces.start(program).returncode == 0
    pieces.target = 6
    assert pieces.start(program).returncode == 0
    assert content(pieces.checkpoint(6)) == content(whole.checkpoint(6))
    assert len(whole.of("checkpoint")) == 6


def test_the_program_of_the_readme_runs_and_goes_on(tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    page = (PACKAGE / "README.md").read_text()
    program = script(tmp_path, re.findall(r"```python\n(.*?)```", page, re.S)[0])
    whole = FakePipe(tmp_path / "whole", target=3)
    assert whole.start(program).returncode == 0
    pieces = FakePipe(tmp_path / "pieces", target=2)
    assert pieces.start(program).returncode == 0
    pieces.target = 3
    assert pieces.start(program).returncode == 0
    assert content(pieces.checkpoint(3)) == content(whole.checkpoint(3))


def test_importing_imports_no_framework(tmp_path):
    text = (
        "import sys, burn_pipe\n"
        "print([m for m in ('torch', 'numpy', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
