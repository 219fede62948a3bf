"""A model at the ChatModel door that needs no server: for tests of what stands before the door."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from stillroom.models.chat import ChatModel, Completion, Reply, Request
from stillroom.models.config import Price


def echo(request: Request) -> Reply:
    """Answer with the question's length, in a box, after a thought that names the draw."""
    question = request.messages[-1].content
    return Completion(
        reasoning=f"draw {request.draw}: count",
        answer=f"The answer is \\boxed{{{len(question)}}}.",
        finish_reason="stop",
        prompt_tokens=len(question),
        completion_tokens=10 + request.draw,
    )


class FakeModel:
    """Replies by a function, and counts what it was asked."""

    def __init__(self, reply: Callable[[Request], Reply] = echo) -> None:
        self.reply = reply
        self.asked: Counter[bytes] = Counter()

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        for request in requests:
            self.asked[request.key] += 1
            yield request, self.reply(request)


class FakeModels:
    """Stands where the user's models.toml stands."""

    def __init__(self, model: ChatModel, price: Price | None = None) -> None:
        self.model = model
        self.price = price
        self.opened = 0

    def open(self, name: str) -> ChatModel:
        self.opened += 1
        return self.model

    def prices(self, name: str) -> Price | None:
        return self.price

    def speed(self, name: str) -> float | None:
        return None
