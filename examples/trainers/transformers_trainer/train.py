"""A tiny language model of counting, by Transformers' Trainer."""

import torch
from burn_pipe import job
from burn_pipe.transformers import PipeCallback
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

set_seed(job.seed)
model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=32, n_layer=1, n_head=2))
rows = [(torch.arange(16) * step + first) % 32 for step in range(1, 5) for first in range(32)]
data = [{"input_ids": row, "labels": row} for row in rows]

arguments = TrainingArguments(
    output_dir=str(job.scratch),
    num_train_epochs=job.target or 3,
    learning_rate=job.settings.get("learning_rate", 1e-3),
    lr_scheduler_type="constant",
    per_device_train_batch_size=16,
    seed=job.seed,
    save_strategy="no",
    eval_strategy="epoch",
    logging_strategy="epoch",
    report_to=[],
)
train, test = data[::2], data[1::2]
trainer = Trainer(
    model, arguments, train_dataset=train, eval_dataset=test, callbacks=[PipeCallback()]
)
trainer.train(resume_from_checkpoint=job.start and str(job.start))
