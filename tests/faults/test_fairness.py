"""Two callers at one server: neither starves, whether the server refuses or lets calls wait."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.fake_teacher import fake_teacher

from stillroom.models.buy import buy
from stillroom.models.chat import Message, Request, Sampling
from stillroom.models.ledger import Ledger
from stillroom.models.openai import OpenAIModel

SLOTS = 16


class StopStep(Exception):
    """Enough was seen; what was looked up ahead need not be bought."""


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--queue", "0"), ()], ids=["refuses", "waits"])
def test_a_second_step_gets_its_share_of_a_server_that_is_full(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """One has the server for itself at first, and has learnt how much it can take."""
    replies: Counter[str] = Counter()
    enough = threading.Event()

    def step(name: str, url: str) -> None:
        def count(*_: object) -> None:
            replies.update([name])
            if enough.is_set():
                raise StopStep

        wanted = (
            Request("m", (Message("user", f"{name} {i}?"),), Sampling()) for i in itertools.count()
        )
        with Ledger(tmp_path / "ledger") as ledger, suppress(StopStep):
            model = OpenAIModel("m", url, concurrency=64, pause_s=0.05)
            buy(wanted, model=model, ledger=ledger, on_reply=count)

    def until(condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < give_up_at, replies
            time.sleep(0.005)

    with fake_teacher("--slots", str(SLOTS), "--latency", "0.03", *options) as teacher:
        steps = [threading.Thread(target=step, args=(name, teacher.url)) for name in ("a", "b")]
        try:
            steps[0].start()
            until(lambda: replies["a"] >= 200)
            before = replies["a"]
            steps[1].start()
            until(lambda: replies["b"] >= 20)  # it has found its way in
            met = replies.copy()
            until(lambda: replies.total() - met.total() >= 1000)
            shared = replies - met
        finally:
            enough.set()
            for each in steps:
                if each.ident:
                    each.join(60)
    assert met["a"] - before < 1500
    assert min(shared[name] for name in "ab") > 0.15 * shared.total()
