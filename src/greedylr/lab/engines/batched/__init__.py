"""Many runs of one problem at once: stacked parameters, vectorised optimizers and schedulers, in one thread."""

from greedylr.lab.engines.batched.job import Job, Trajectory
from greedylr.lab.engines.batched.single import train_one
from greedylr.lab.engines.batched.train import parts, supports, train_batched

__all__ = ["Job", "Trajectory", "parts", "supports", "train_batched", "train_one"]
