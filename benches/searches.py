"""A search for the best of 27 rates, by halvings of this program, Optuna's and Ray Tune's: how many
epochs are trained, and how many of them twice when the whole is killed on the way.

    python benches/searches.py --pipe target/release/pipe        # needs optuna and ray[tune]

All of them train the same toy, whose loss is a function of rate and epoch, with rungs at 1, 3, 9 and
27 epochs of which a third goes on. Every epoch that is trained is a line in a log. Each search is run
once undisturbed, and once killed after 30 epochs and begun again in the way its manual says.
"""

import argparse
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

RATES = [round(10 ** (-4 + 3 * i / 26), 6) for i in range(27)]
RUNGS, KEEP, KILLED_AT = [1, 3, 9, 27], 3, 30


def loss(rate, epoch):
    """Curves that do not cross, as halving supposes; the best is in the middle."""
    end = 0.1 + 0.08 * abs(math.log10(rate) + 2.4)
    return end + (1 - end) * math.exp(-epoch / 6)


def train_epoch(rate, epoch):
    with open(os.environ["SEARCH_LOG"], "a") as log:
        log.write(f"{rate} {epoch}\n")
    time.sleep(0.01)
    return loss(rate, epoch)


def program():
    from burn_pipe import job

    rate = job.settings["rate"]
    for epoch in job.epochs():
        value = train_epoch(rate, epoch)
        job.report()
        job.save(lambda path: path.write_text(f"{rate} {epoch}"), {"train_loss": value})


def optuna_search(folder):
    import optuna
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = RDBStorage(
        f"sqlite:///{folder}/study.db",
        heartbeat_interval=1,
        grace_period=2,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=3),
    )
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=KEEP)
    new = not pathlib.Path(folder, "begun").exists()
    study = optuna.create_study(study_name="s", storage=storage, pruner=pruner, load_if_exists=True)
    if new:
        for rate in RATES:
            study.enqueue_trial({"rate": rate})
        pathlib.Path(folder, "begun").touch()
    else:
        time.sleep(3)  # the grace of the trial that was killed

    def objective(trial):
        rate = trial.suggest_categorical("rate", RATES)
        value = None
        for epoch in range(1, RUNGS[-1] + 1):
            value = train_epoch(rate, epoch)
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned()
        return value

    done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    left = len(RATES) - len(study.get_trials(states=done))
    study.optimize(objective, n_trials=left)


def ray_search(folder):
    import ray
    from ray import tune
    from ray.tune import Checkpoint
    from ray.tune.schedulers import ASHAScheduler

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             runtime_env={"env_vars": {"SEARCH_LOG": os.environ["SEARCH_LOG"]}})

    def trainable(config):
        first, checkpoint = 1, tune.get_checkpoint()
        if checkpoint:
            with checkpoint.as_directory() as at:
                first = int(pathlib.Path(at, "state").read_text()) + 1
        for epoch in range(first, RUNGS[-1] + 1):
            value = train_epoch(config["rate"], epoch)
            with tempfile.TemporaryDirectory() as at:
                pathlib.Path(at, "state").write_text(str(epoch))
                tune.report({"loss": value, "epoch": epoch}, checkpoint=Checkpoint.from_directory(at))

    path = f"{folder}/ray"
    if tune.Tuner.can_restore(f"{path}/s"):
        tuner = tune.Tuner.restore(f"{path}/s", trainable, resume_unfinished=True)
    else:
        asha = ASHAScheduler(time_attr="epoch", max_t=RUNGS[-1], grace_period=1, reduction_factor=KEEP)
        tuner = tune.Tuner(
            trainable,
            param_space={"rate": tune.grid_search(RATES)},
            tune_config=tune.TuneConfig(metric="loss", mode="min", scheduler=asha, max_concurrent_trials=1),
            run_config=tune.RunConfig(name="s", storage_path=path, verbose=0),
        )
    tuner.fit()


PIPELINE = """name: s
fsync: off
stages:
  base:
    kind: trainer
    run: [{python}, {script}, --only, program]
    settings: {{ rate: 0.1 }}
    matrix: {{ rate: {rates} }}
    halving: {{ rungs: {rungs}, keep: 1/{keep}, monitor: train_loss{asynchronous} }}
"""


def command(which, folder, pipe):
    if not which.startswith("pipe"):
        return [sys.executable, __file__, "--only", which, "--folder", folder]
    asynchronous = ", asynchronous: true" if which == "pipe, asynchronous" else ""
    text = PIPELINE.format(python=sys.executable, script=os.path.abspath(__file__), rates=RATES,
                           rungs=RUNGS, keep=KEEP, asynchronous=asynchronous)
    pathlib.Path(folder, "s.yaml").write_text(text)
    return [pipe, "run", "s.yaml"]


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def search(which, pipe, is_killed):
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "log")
        python = pathlib.Path(__file__).resolve().parent.parent / "python"
        env = {**os.environ, "SEARCH_LOG": str(log), "PYTHONPATH": str(python), "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
        start = lambda: subprocess.Popen(command(which, folder, pipe), cwd=folder, env=env, start_new_session=True,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running = start()
        if is_killed:
            while len(lines(log)) < KILLED_AT and running.poll() is None:
                time.sleep(0.005)
            # What Ray started has sessions of its own, and ends when it misses the first process.
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            time.sleep(15 if which == "Ray Tune" else 1)
            running = start()
        if running.wait() != 0:
            sys.exit(f"{which} failed: {' '.join(command(which, folder, pipe))}")
        all_lines = lines(log)
        whole = [rate for rate, epoch in map(str.split, all_lines) if int(epoch) == RUNGS[-1]]
        best = min(RATES, key=lambda rate: loss(rate, RUNGS[-1]))
        found = str(best) in whole
        until = next((n for n, line in enumerate(all_lines, 1) if line == f"{best} {RUNGS[-1]}"), None)
        return len(all_lines), len(all_lines) - len(set(all_lines)), until, found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pipe", default="pipe")
    parser.add_argument("--only")
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    inner = {"program": program, "Optuna": lambda: optuna_search(arguments.folder), "Ray Tune": lambda: ray_search(arguments.folder)}
    if arguments.only == "program" or arguments.folder:
        return inner[arguments.only]()
    print("| search | epochs | until the best | killed: epochs | of them twice | until the best |")
    print("|---|---|---|---|---|---|")
    shown = lambda until: until if until else "not found"
    for which in ["pipe", "pipe, asynchronous", "Optuna", "Ray Tune"]:
        if arguments.only and arguments.only != which:
            continue
        epochs, _, until, _ = search(which, arguments.pipe, False)
        killed, twice, killed_until, _ = search(which, arguments.pipe, True)
        print(f"| {which} | {epochs} | {shown(until)} | {killed} | {twice} | {shown(killed_until)} |", flush=True)


if __name__ == "__main__":
    main()
