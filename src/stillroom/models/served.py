"""A completion together with what its server said about itself."""

from dataclasses import dataclass, field

from stillroom.models.chat import Completion


@dataclass(frozen=True, slots=True)
class ServedCompletion(Completion):
    """A completion from a server; equal to another when what the model wrote is equal.

    Attributes:
        served_name: The model that the server says answered; may be finer than the frozen name.
        provider_id: The server's own id of the call, for questions about a bill.
        counted: Whether the server sent token counts. Without them both counts are 0, and sums
            over such completions are lower bounds.
    """

    served_name: str | None = field(default=None, compare=False)
    provider_id: str | None = field(default=None, compare=False)
    counted: bool = field(default=True, compare=False)
