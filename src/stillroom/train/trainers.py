"""Every trainer by its name."""

from collections.abc import Mapping

from stillroom.train.command import Command
from stillroom.train.elsewhere import Axolotl, LlamaFactory
from stillroom.train.proxy import Proxy
from stillroom.train.trainer import Trainer
from stillroom.train.trl import Trl

TRAINERS: Mapping[str, Trainer] = {
    "proxy": Proxy(),
    "trl": Trl(),
    "llamafactory": LlamaFactory(),
    "axolotl": Axolotl(),
    "command": Command(),
}


def trainer_of(name: str) -> Trainer:
    """Return a trainer.

    Raises:
        KeyError: If there is none of that name; the form of a student does not let one through.
    """
    return TRAINERS[name]
