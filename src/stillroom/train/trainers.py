"""Every trainer by its name."""

from collections.abc import Mapping

from stillroom.train.proxy import Proxy
from stillroom.train.trainer import Trainer

TRAINERS: Mapping[str, Trainer] = {"proxy": Proxy()}


def trainer_of(name: str) -> Trainer:
    """Return a trainer.

    Raises:
        KeyError: If there is none of that name; the form of a student does not let one through.
    """
    return TRAINERS[name]
