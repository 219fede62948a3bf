"""Any server that speaks the OpenAI chat completions protocol, hosted or self-hosted.

- ``model``: the door, and what a user configures;
- ``call``: requests on their way, in an event loop in a thread;
- ``flow``: how many at once, by a limit per server that learns, and budgets per minute;
- ``retries``: what becomes of a call that brought no completion;
- ``wire``: the protocol, bodies in, completions and errors out.
"""

from stillroom.models.openai.model import OpenAIModel

__all__ = ["OpenAIModel"]
