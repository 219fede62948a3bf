"""What is asked: a text, or the first message of a user in a conversation."""

from typing import Any

ROLES, TEXTS = ("role", "from"), ("content", "value")
"""Fields of a message, as in chat APIs and as in ShareGPT."""

ASKERS = ("user", "human")


def asked(value: Any) -> str | None:
    """Return what a value asks: the text itself, or of a list of messages the user's first.

    A lone surrogate, which cannot be written as UTF-8, is shown as a question mark. Anything that
    is neither a text nor messages asks nothing.

    >>> asked([{"from": "system", "value": "Think."}, {"from": "human", "value": "Why?"}])
    'Why?'
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    for message in value if isinstance(value, list) else ():
        if isinstance(message, dict) and any(message.get(r) in ASKERS for r in ROLES):
            text = next((message[t] for t in TEXTS if t in message), None)
            return asked(text) if isinstance(text, str) else None
    return None
