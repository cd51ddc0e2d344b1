"""A small network in one process or two: the same losses and the same weights, to the last bit.

Each batch is cut into two shards, whoever computes them. A process adds up nothing: it fills in the
rows of its shards, and the rows are added in their order by everybody. PyTorch's
`DistributedDataParallel` averages in an order of its own, so that its bits depend on the number of
processes; the calls of `job` are the same there.
"""

import math
import os
import time

import torch
import torch.distributed as dist
from burn_pipe import canonical, job

SHARDS, BATCH = 2, 16
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if world > 1:
    dist.init_process_group("gloo")  # finds the others by MASTER_ADDR and MASTER_PORT

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(job.seed)
x = torch.rand(128, 2)
y = torch.sin(math.pi * x.sum(1, keepdim=True))
model = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
learning_rate = job.settings.get("learning_rate", 0.01)
optimizer = torch.optim.Adam(model.parameters(), learning_rate)
total = 0.0  # losses of the epoch so far
if job.start:
    state = canonical(torch.load(job.start))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    optimizer.param_groups[0]["lr"] = learning_rate  # the state brings the rate of before
    total = state["total"]


def step(batch: torch.Tensor) -> float:
    parameters = list(model.parameters())
    rows = torch.zeros(SHARDS, 1 + sum(p.numel() for p in parameters))
    for shard in range(rank, SHARDS, world):
        part = batch[shard::SHARDS]
        loss = (model(x[part]) - y[part]).square().sum() / len(batch)
        gradients = torch.autograd.grad(loss, parameters)
        rows[shard] = torch.cat([value.detach().flatten() for value in (loss, *gradients)])
    if world > 1:
        dist.all_reduce(rows)  # each row is zero but in one process: these sums are exact
    loss, gradient = sum(rows).split([1, rows.shape[1] - 1])
    torch.nn.utils.vector_to_parameters(gradient, [p.grad for p in parameters])
    optimizer.step()
    return loss.item()


def write(path):
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "total": total}
    torch.save(state, path)


for parameter in model.parameters():
    parameter.grad = torch.zeros_like(parameter)
inside = job.step_in_epoch
for epoch in job.epochs(20):
    batches = torch.randperm(len(x)).split(BATCH)  # seeded by (seed, epoch), the same everywhere
    for inside in range(inside, len(batches)):
        loss = step(batches[inside])
        total += loss
        time.sleep(job.settings.get("pause", 0))
        job.report(steps=len(batches), step_in_epoch=inside + 1, loss=loss)
        # What rank 0 was answered counts for all: none of them waits for one that has left.
        if inside + 1 < len(batches) and job.agreed(job.should_save):
            job.save(write, step_in_epoch=inside + 1)
            if job.agreed(job.should_stop):
                break
    else:
        mean, total, inside = total / len(batches), 0.0, 0
        job.save(write, {"train_loss": mean})
if world > 1:
    dist.destroy_process_group()
