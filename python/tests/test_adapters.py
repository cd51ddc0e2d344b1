"""Each adapter on a tiny model: six epochs at once are, byte for byte, three and three more."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from fake_pipe import FakePipe, content
from test_job import script

LIGHTNING = '''
import sys, warnings
warnings.simplefilter("ignore")
import torch
from torch.utils.data import DataLoader, TensorDataset
import FRAMEWORK as L
from burn_pipe import job
from burn_pipe.lightning import EpochSampler, PipeCallback

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(8, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))

    def training_step(self, batch, index):
        x, y = batch
        loss = ((self.net(x + 0.1 * torch.randn_like(x)) - y) ** 2).mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        self.log("worst", loss, on_step=False, on_epoch=True, reduce_fx=max)
        self.log("sum", loss, on_epoch=True, reduce_fx="sum")
        if index == 1:
            self.log("early", loss, on_step=False, on_epoch=True)
            self.log("now", loss)
        return loss

    def validation_step(self, batch, index):
        x, y = batch
        self.log("val_loss", ((self.net(x) - y) ** 2).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]

class Noisy(torch.utils.data.Dataset):
    def __init__(self):
        self.x = torch.arange(512.0).view(64, 8) / 512
    def __len__(self):
        return 64
    def __getitem__(self, index):
        return self.x[index] + 0.1 * torch.randn(8), self.x[index, :1]

if __name__ == "__main__":
    L.seed_everything(job.seed)
    data = Noisy()
    order = {"shuffle": True} if "shuffle" in sys.argv else {"sampler": EpochSampler(data)}
    loader = DataLoader(data, 8, num_workers=job.settings.get("workers", 0), **order)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[PipeCallback()], logger=False,
        val_check_interval=job.settings.get("validate", 1.0),
        enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Net(), loader, DataLoader(data, 64), ckpt_path=job.start)
'''

TRANSFORMERS = '''
import torch
from transformers import (
    BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed)
from burn_pipe import job
from burn_pipe.transformers import PipeCallback

set_seed(job.seed)
model = BertForSequenceClassification(BertConfig(
    vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=16))
rows = torch.randint(0, 32, (64, 8))
data = [{"input_ids": row, "labels": int(row[0] > 15)} for row in rows]
arguments = TrainingArguments(
    str(job.scratch), num_train_epochs=job.target, per_device_train_batch_size=8, seed=job.seed,
    save_strategy="no", eval_strategy="epoch", use_cpu=True,
    logging_strategy=job.settings.get("log", "epoch"),
    logging_steps=job.settings.get("log_every", 1),
    lr_scheduler_type="constant", report_to=[], disable_tqdm=True)
trainer = Trainer(
    model, arguments, train_dataset=data, eval_dataset=data, callbacks=[PipeCallback()])
trainer.train(resume_from_checkpoint=job.start and str(job.start))
'''

ACCELERATE = '''
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset
from burn_pipe.accelerate import epochs, job, report, resume, save

torch.manual_seed(job.seed)
accelerator = Accelerator(cpu=True)
x = torch.arange(512.0).view(64, 8) / 512
net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
loader = DataLoader(TensorDataset(x, x[:, :1]), 8, shuffle=True)
net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
resume(accelerator)
for epoch in epochs(accelerator):
    for x, y in loader:
        loss = ((net(x + 0.1 * torch.randn_like(x)) - y) ** 2).mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        report(accelerator, loss=loss)
    save(accelerator, {"train_loss": loss})
'''


def needs(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def good(done) -> None:
    assert done.returncode == 0, done.stderr


def whole_and_pieces(
    tmp_path: Path, text: str, stop_at_step: int = 18, **settings
) -> tuple[FakePipe, FakePipe]:
    """Six epochs at once; and in two goes with a stop asked for in the third epoch."""
    program = script(tmp_path, text)
    whole = FakePipe(tmp_path / "whole", target=6, settings=settings)
    good(whole.start(program))
    pieces = FakePipe(tmp_path / "pieces", target=6, settings=settings, stop_at_step=stop_at_step)
    good(pieces.start(program))
    assert pieces.position["done"] < 6, pieces.messages
    pieces.stop_at_step = None
    good(pieces.start(program))
    assert whole.position["step"] == pieces.position["step"] == 48
    return whole, pieces


def differing(whole: FakePipe, pieces: FakePipe) -> set[str]:
    left, right = content(whole.checkpoint(6)), content(pieces.checkpoint(6))
    assert left.keys() == right.keys() and left
    return {name for name in left if left[name] != right[name]}


def told(pipe: FakePipe) -> list[dict]:
    """The epochs with their metrics."""
    return [m for m in pipe.of("metrics") if "step_in_epoch" not in m and "checkpoint" not in m]


@pytest.mark.parametrize(
    ("framework", "settings"),
    [
        ("lightning", {"workers": 0}),
        ("lightning", {"workers": 2}),
        ("lightning", {"validate": 3}),
        ("pytorch_lightning", {"workers": 0}),
    ],
)
def test_lightning(tmp_path, framework, settings):
    needs("torch", framework)
    text = LIGHTNING.replace("FRAMEWORK", framework)
    # The last validation of the epoch lies before the stop, where it is validated inside.
    stop = 23 if "validate" in settings else 18
    whole, pieces = whole_and_pieces(tmp_path, text, stop, **settings)
    assert differing(whole, pieces) == set()
    assert told(whole) == told(pieces) and len(told(whole)) == 6
    names = {"train_loss", "worst", "sum", "sum_epoch", "early", "now", "val_loss"}
    assert all(names == m["metrics"].keys() for m in told(whole))
    steps = [m for m in whole.messages if "steps" in m]
    assert [m["step"] for m in steps] == list(range(1, 49)) and steps[0]["steps"] == 8
    assert not whole.of("warning") and not whole.of("failure")
    inside = [m for m in pieces.of("checkpoint") if "step_in_epoch" in m]
    assert [m["step_in_epoch"] for m in inside] == [stop - 16], "a stop is saved inside the epoch"


def test_lightning_says_where_the_metrics_of_an_epoch_cover_only_its_rest(tmp_path):
    needs("torch", "lightning")
    text = LIGHTNING.replace("FRAMEWORK", "lightning").replace(
        "if __name__", "import burn_pipe.lightning as b\nb._results = lambda t: t.gone\nif __name__"
    )
    whole, pieces = whole_and_pieces(tmp_path, text)
    assert differing(whole, pieces) == set() and not whole.of("warning")
    assert [m["warning"].partition(":")[0] for m in pieces.of("warning")] == [
        "the metrics of epoch 3 cover only its steps from 3 on"
    ]


def test_lightning_tells_of_an_early_stop(tmp_path):
    needs("torch", "lightning")
    text = LIGHTNING.replace("FRAMEWORK", "lightning").replace(
        "callbacks=[PipeCallback()]",
        "callbacks=[PipeCallback(), L.pytorch.callbacks.EarlyStopping('val_loss', 9, patience=1)]",
    )
    pipe = FakePipe(tmp_path, target=9)
    good(pipe.start(script(tmp_path, text)))
    assert pipe.messages[-1] == {"finished": "Lightning stopped the training after epoch 2"}


def test_lightning_warns_of_a_loader_with_an_order_of_its_own(tmp_path):
    needs("torch", "lightning")
    pipe = FakePipe(tmp_path, target=1)
    good(pipe.start(script(tmp_path, LIGHTNING.replace("FRAMEWORK", "lightning")), "shuffle"))
    assert "EpochSampler" in pipe.of("warning")[0]["warning"]


def test_lightning_is_told_of_a_start_that_it_was_not_given(tmp_path):
    needs("torch", "lightning")
    text = LIGHTNING.replace("FRAMEWORK", "lightning").replace(", ckpt_path=job.start", "")
    program = script(tmp_path, text)
    pipe = FakePipe(tmp_path, target=1)
    good(pipe.start(program))
    pipe.target = 2
    done = pipe.start(program)
    assert done.returncode == 1 and "ckpt_path=job.start" in done.stderr


def test_lightning_reports_what_it_fails_with(tmp_path):
    needs("torch", "lightning")
    text = LIGHTNING.replace("FRAMEWORK", "lightning")
    text = text.replace("        x, y = batch\n", "        raise torch.OutOfMemoryError('no')\n", 1)
    pipe = FakePipe(tmp_path, target=1)
    assert pipe.start(script(tmp_path, text)).returncode == 1
    assert [message["failure"] for message in pipe.of("failure")] == ["out_of_memory"]


def state(pipe: FakePipe) -> dict:
    return json.loads((pipe.checkpoint(6) / "trainer_state.json").read_text())


@pytest.mark.parametrize(
    "settings",
    [{}, {"log": "steps", "log_every": 5}, {"log": "steps", "log_every": 17}],
)
def test_transformers(tmp_path, settings):
    needs("torch", "transformers", "accelerate")
    whole, pieces = whole_and_pieces(tmp_path, TRANSFORMERS, **settings)
    assert differing(whole, pieces) == set()
    assert told(whole) == told(pieces) and not pieces.of("warning")
    logged = {name for entry in state(whole)["log_history"] for name in entry}
    assert logged == {"epoch", "step", "loss", "grad_norm", "learning_rate", "eval_loss"}
    inside = [m for m in pieces.of("checkpoint") if "step_in_epoch" in m]
    assert [m["step_in_epoch"] for m in inside] == [2], "a stop is saved inside the epoch"
    epochs = [m for m in whole.messages if "epoch" in m and "eval_loss" in m.get("metrics", {})]
    assert [m["epoch"] for m in epochs] == [1, 2, 3, 4, 5, 6]
    is_logged = settings.get("log_every") != 17
    assert all("loss" in m["metrics"] for m in epochs if is_logged or m["epoch"] == 3)


def test_transformers_says_where_the_loss_of_an_epoch_covers_only_its_rest(tmp_path):
    needs("torch", "transformers", "accelerate")
    text = TRANSFORMERS.replace(
        "set_seed(job.seed)",
        "import burn_pipe.transformers as b\nb._running = lambda: None\nset_seed(job.seed)",
    )
    whole, pieces = whole_and_pieces(tmp_path, text)
    assert differing(whole, pieces) == {"trainer_state.json"} and not whole.of("warning")
    assert [m["warning"].partition(":")[0] for m in pieces.of("warning")] == [
        "the loss of epoch 3 covers only its steps from 3 on"
    ]


def test_accelerate(tmp_path):
    needs("torch", "accelerate")
    whole, pieces = whole_and_pieces(tmp_path, ACCELERATE)
    assert differing(whole, pieces) == set()
