"""The worker of `trl` on a machine whose devices are processes on the CPU.

accelerate copies a model to several CPUs (`ddp`), but shards it (`fsdp`, `zero3`) over GPUs alone.
There it is told that the CPU is one, by gloo; all else, its configuration files among it, is as it
would be with GPUs.
"""

import os
import sys

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from stillroom.train.trl_worker import main


def _as_if_a_gpu(cls):
    real = cls.__init__

    def init(self, *args, cpu=False, **more):
        # The backend is transformers' word for training on the CPU.
        more.pop("backend", None)
        real(self, *args, cpu=False, **more)

    cls.__init__ = init


if __name__ == "__main__":
    if {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & set(os.environ):
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
        _as_if_a_gpu(PartialState)
        _as_if_a_gpu(AcceleratorState)
    sys.exit(main(sys.argv[1], sys.argv[2]))
