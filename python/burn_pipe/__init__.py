"""Any training program as a stage of a pipeline.

`job` is what a training program talks to: which epochs are to do, where to go on from, when to
save and when to stop. Started by a `trainer` stage of `pipe`, it speaks to `pipe`; started by hand,
it keeps checkpoints in a folder of its own and goes on from them in the same way.

`load` reads a checkpoint. The adapters `burn_pipe.lightning`, `burn_pipe.transformers` and
`burn_pipe.accelerate`, and the network `burn_pipe.diffit`, import their framework when they are
imported, and nothing does before.
"""

from ._canonical import canonical
from ._checkpoint import load
from ._job import Job
from ._protocol import JobError
from ._seed import reseed

job = Job()
"""The training that this process does. Nothing is read or opened before its first use."""

__all__ = ["Job", "JobError", "canonical", "job", "load", "reseed"]
