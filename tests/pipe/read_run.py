"""Reads a run's folder as its users would: best.ckpt with safetensors, the curves with TensorBoard's own reader.

    python3 read_run.py checkpoints/base_training/run_001

Prints what it found as one line of JSON.
"""
import json
import sys

import numpy
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

run = sys.argv[1]
with safe_open(f"{run}/checkpoints/last.ckpt", "np") as last:
    metadata = last.metadata()
with safe_open(f"{run}/checkpoints/best.ckpt", "np") as best:
    names = [name for name in best.keys() if name.startswith("state_dict.")]
    assert all(numpy.isfinite(best.get_tensor(name)).all() for name in names)

events = EventAccumulator(f"{run}/logs")
events.Reload()
curve = [(point.step, point.value) for point in events.Scalars("train_loss")]

hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data
assert hparams.plugin_name == "hparams"
start = plugin_data_pb2.HParamsPluginData.FromString(hparams.content).session_start_info
settings = {key: value.WhichOneof("kind") for key, value in start.hparams.items()}
table = events.Tensors("settings")[0].tensor_proto.string_val[0].decode()

print(json.dumps({
    "hparams": settings,
    "learning_rate": start.hparams["learning_rate"].number_value,
    "table": table,
    "epoch": metadata["epoch"],
    "model_config": json.loads(metadata["model_config"]),
    "tensors": len(names),
    "train_loss": curve,
}))
