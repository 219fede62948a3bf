"""Keys: what was asked, hashed, so that asking the same again finds the same artifact.

A key speaks of the step's name, its ``VERSION``, its fields, and the digests of the content that
it reads. Paths, hosts, times, worker counts and code are not in it. Because inputs enter by
content, a change upstream that leaves the rows as they were leaves every later key as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stillroom.steps.base import Runtime, Step
from stillroom.store.digest import value_digest
from stillroom.store.table import Table


@dataclass(frozen=True)
class Asked:
    """Everything that enters a key, kept in the manifest so that a change can be explained.

    Attributes:
        step: Step name.
        version: The step's ``VERSION``.
        fields: The step's fields.
        inputs: For each input table the columns read and the digest of what they show.
    """

    step: str
    version: int
    fields: dict[str, Any]
    inputs: list[dict[str, Any]]

    @property
    def key(self) -> str:
        """The key: 32 hexadecimal digits."""
        return value_digest([self.step, self.version, self.fields, self.inputs])


def ask(step: Step, inputs: Sequence[Table], rt: Runtime) -> Asked:
    """Gather what enters the key of a step on these tables."""
    read = []
    for table in inputs:
        columns = sorted(set(step.reads(table.shape)) - {"id"})
        read.append({"columns": columns, "digest": table.digest(*columns)})
    outside = step.outside(rt)
    if outside is not None:
        read.append({"columns": [], "digest": outside})
    return Asked(step.STEP, step.VERSION, step.identity(), read)
