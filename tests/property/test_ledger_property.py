"""Keys depend on what is asked and nothing else; a ledger is a dictionary that survives."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.models.chat import Completion, Failure, Message, Reply, Request, Sampling
from stillroom.models.ledger import Ledger, Usage

ANY_TEXT = st.text(st.characters(), max_size=20)  # half surrogate pairs included
MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), ANY_TEXT), max_size=3
).map(tuple)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0.1, 1),
    max_tokens=st.none() | st.integers(1, 10**6),
)
REQUESTS = st.builds(
    Request, st.sampled_from(["m", "n", "m/n"]), MESSAGES, SAMPLINGS, st.integers(0, 99)
)
COUNTS = st.integers(0, 2**40)
FINISHES = st.sampled_from(["stop", "length", "content_filter"])
COMPLETIONS = st.builds(Completion, st.none() | ANY_TEXT, ANY_TEXT, FINISHES, COUNTS, COUNTS)
SERVED = st.builds(
    Completion,
    st.none() | ANY_TEXT,
    ANY_TEXT,
    FINISHES,
    COUNTS,
    COUNTS,
    served_name=st.none() | ANY_TEXT,
    provider_id=st.none() | ANY_TEXT,
    counted=st.just(True),
)
FAILURES = st.builds(Failure, st.sampled_from(["timeout", "refused"]), st.text(max_size=20))

KEYS_ELSEWHERE = """
import json, sys
from stillroom.models.chat import Message, Request, Sampling
for line in sys.stdin:
    model, messages, sampling, draw = json.loads(line)
    messages = tuple(Message(*m) for m in messages)
    print(Request(model, messages, Sampling(**sampling), draw).key.hex())
"""


def test_key_of_a_known_request_never_changes() -> None:
    """A changed key would make every ledger in the world look empty."""
    messages = (Message("system", "Be brief."), Message("user", "Wie groß ist π?"))
    sampling = Sampling(temperature=0.7, top_p=1.0, max_tokens=32000)
    request = Request("Qwen/QwQ-32B", messages, sampling, draw=3)
    assert request.key.hex() == "5cbd89ec5eac25c213430101eb6853d0"


@given(st.tuples(REQUESTS, REQUESTS))
def test_key_differs_exactly_when_the_request_does(pair: tuple[Request, Request]) -> None:
    one, two = pair
    assert (one.key == two.key) == (one == two)
    assert len(one.key) == 16


@given(ANY_TEXT, ANY_TEXT)
def test_key_tells_where_one_message_ends(a: str, b: str) -> None:
    together = Request("m", (Message("user", a + b),), Sampling())
    apart = Request("m", (Message("user", a), Message("user", b)), Sampling())
    assert together.key != apart.key


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_key_is_the_same_in_every_process(hash_seed: str) -> None:
    requests: list[tuple[Any, ...]] = [
        ("m", [["user", text]], {"max_tokens": i, "temperature": i / 7}, i)
        for i, text in enumerate(["", "2+2?", "π\u2028", '"\\'], start=1)
    ]
    here = [
        Request(m, tuple(Message(*x) for x in ms), Sampling(**s), d).key.hex()
        for m, ms, s, d in requests
    ]
    lines = [json.dumps([m, ms, dict(reversed(s.items())), d]) for m, ms, s, d in requests]
    there = subprocess.run(
        [sys.executable, "-c", KEYS_ELSEWHERE],
        input="\n".join(lines),
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split() == here


@settings(max_examples=50)
@given(st.lists(st.tuples(REQUESTS, COMPLETIONS | SERVED | FAILURES), max_size=12))
def test_ledger_keeps_the_first_completion_and_the_last_failure(
    replies: list[tuple[Request, Reply]],
) -> None:
    completions: dict[bytes, Completion] = {}
    failures: dict[bytes, Failure] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger"
        for part in (replies[:6], replies[6:]):
            with Ledger(path) as ledger:
                for request, reply in part:
                    if isinstance(reply, Failure):
                        failures[request.key] = reply
                    else:
                        completions.setdefault(request.key, reply)
                    ledger.put(request, reply)
        for key in completions:
            failures.pop(key, None)
        keys = {request.key for request, _ in replies}
        with Ledger(path) as ledger:
            found = ledger.get_many(keys)
            assert {k: repr(v) for k, v in found.items()} == {
                k: repr(v) for k, v in completions.items()
            }
            assert ledger.failures(keys) == failures
            assert ledger.missing(keys) == keys - set(completions)
            assert ledger.usage(keys) == Usage(
                len(completions),
                sum(c.prompt_tokens for c in completions.values()),
                sum(c.completion_tokens for c in completions.values()),
                0,
            )
            assert list(ledger.verify()) == []
