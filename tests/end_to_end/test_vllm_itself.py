"""Stillroom against vLLM itself: what the stand-ins of other tests are modelled on.

    STILLROOM_VLLM=/opt/vllm/bin/vllm pytest tests/end_to_end/test_vllm_itself.py

A GPU is not needed: a build for CPUs serves the embedded models, which take 3 MB.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.stand_in_vllm import alive

from stillroom.errors import ModelError
from stillroom.evaluate.hosting import hosted
from stillroom.models.chat import Completion, Failure, Message, Reply, Request, Sampling
from stillroom.models.config import ModelsConfig, OpenAIEntry, StudentsEntry
from stillroom.models.likelihoods import Passage
from stillroom.models.supervise import Launch, Patience, Supervisor

VLLM = os.environ.get("STILLROOM_VLLM", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VLLM, reason="STILLROOM_VLLM does not name the command of a vLLM"),
]

TEACHER = "stillroom/teacher-1"
SERVED = "vllm/teacher-1"
FLAGS = (
    "--dtype", "float32",  # as the local engine computes
    # On CPUs, vLLM 0.32 ends when a prompt that is read in parts has a seed.
    "--no-enable-chunked-prefill",
    "--enforce-eager",  # starts sooner
)  # fmt: skip
QUESTIONS = [f"What is {a}+{b}?" for a in range(10, 30) for b in (7, 48)]


@pytest.fixture(scope="module")
def folder() -> Path:
    return ModelsConfig({}).directory(TEACHER)


@pytest.fixture(scope="module")
def models(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelsConfig]:
    launch = Launch("vllm", str(folder), executable=(VLLM,), memory_share=0.05, more=FLAGS)
    supervisor = Supervisor(
        launch, tmp_path_factory.mktemp("logs"), patience=Patience(start_s=300.0)
    )
    with supervisor.healthy() as urls:
        entry = OpenAIEntry(engine="openai", base_url=tuple(urls), served_name=str(folder))
        yield ModelsConfig({SERVED: entry})


def ask(models: ModelsConfig, name: str, *requests: Request) -> dict[Request, Reply]:
    return dict(models.open(name).complete(requests))


def asked(name: str, question: str, draw: int = 0, **sampling: float) -> Request:
    return Request(name, (Message("user", question),), Sampling(**sampling), draw)  # type: ignore[arg-type]


def one(models: ModelsConfig, question: str, **sampling: float) -> Reply:
    [reply] = ask(models, SERVED, asked(SERVED, question, **sampling)).values()
    return reply


def test_likeliest_answers_are_those_of_the_local_engine(models: ModelsConfig) -> None:
    """Token counts too; a rounding may tip one of many."""

    def answers(name: str) -> list[Reply]:
        requests = [asked(name, q, temperature=0.0, max_tokens=200) for q in QUESTIONS]
        got = ask(models, name, *requests)
        return [got[request] for request in requests]

    pairs = list(zip(answers(SERVED), answers(TEACHER), strict=True))
    assert sum(theirs == ours for theirs, ours in pairs) >= 0.95 * len(pairs)


def test_draws_differ_and_come_again(models: ModelsConfig) -> None:
    requests = [asked(SERVED, "What is 12+30?", draw, temperature=0.9) for draw in range(16)]
    first = ask(models, SERVED, *requests)
    assert all(isinstance(reply, Completion) for reply in first.values())
    assert len({str(reply) for reply in first.values()}) > 4
    assert ask(models, SERVED, *requests) == first


def test_answer_that_is_cut_says_so(models: ModelsConfig) -> None:
    reply = one(models, "What is 12+30?", temperature=0.0, max_tokens=5)
    assert isinstance(reply, Completion)
    assert (reply.finish_reason, reply.completion_tokens, reply.counted) == ("length", 5, True)


def test_limit_beyond_the_context_gets_what_is_left(models: ModelsConfig) -> None:
    reply = one(models, "What is 12+30?", temperature=0.0, max_tokens=32_768)
    assert isinstance(reply, Completion)
    assert reply.answer.endswith("\\boxed{42}.")


def test_prompt_beyond_the_context_is_too_long(models: ModelsConfig) -> None:
    for times in (400, 40_000):
        reply = one(models, "12+30 " * times, max_tokens=5)
        assert isinstance(reply, Failure)
        assert reply.reason == "too_long"


def test_unknown_model_is_one_message(models: ModelsConfig) -> None:
    urls = models.open(SERVED).serving.base_urls  # type: ignore[attr-defined]
    other = ModelsConfig({"no/such": OpenAIEntry(engine="openai", base_url=urls)})
    with pytest.raises(ModelError, match="does not serve no/such"):
        ask(other, "no/such", asked("no/such", "1+1?"))
    assert not other.check("no/such").ok


def test_texts_are_as_likely_as_the_local_engine_says(models: ModelsConfig) -> None:
    passages = [Passage(q) for q in QUESTIONS]
    passages += [Passage("The answer is \\boxed{42}.", given=f"{q}\n\n") for q in QUESTIONS]
    pairs = zip(models.scorer(SERVED).score(passages), models.scorer(TEACHER).score(passages),
                strict=True)  # fmt: skip
    for theirs, ours in pairs:
        assert not isinstance(theirs, str)
        assert not isinstance(ours, str)
        assert theirs.tokens == ours.tokens
        assert theirs.total == pytest.approx(ours.total, abs=0.01)


def test_student_is_served_by_two_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    own, logs = shutil.copytree(folder, tmp_path / "model"), tmp_path / "logs"
    students = StudentsEntry(
        engine="vllm", executable=(VLLM,), servers=2, memory_share=0.05, arguments=FLAGS
    )
    with hosted(ModelsConfig({}, students=students), "s", lambda: own, logs) as lent:
        requests = [asked("s", q, temperature=0.0, max_tokens=100) for q in QUESTIONS]
        replies = ask(lent, "s", *requests)
        assert all(isinstance(reply, Completion) for reply in replies.values())
        there = sessions_of(str(own))
        assert len(there) > 2  # each has an engine, and workers, in processes of their own
    assert not any(alive(pid) for pid in there)
    for log in logs.iterdir():
        assert log.read_text().count('/v1/chat/completions HTTP/1.1" 200') > 5


def test_server_that_does_not_start_says_why(folder: Path, tmp_path: Path) -> None:
    own = shutil.copytree(folder, tmp_path / "model")
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "hidden_size": 127}))
    launch = Launch("vllm", str(own), executable=(VLLM,), memory_share=0.05, more=FLAGS)
    patience = Patience(start_s=300.0, restarts=0)
    with (
        pytest.raises(ModelError, match=r"0 restarts; expected it to serve .* says: \S+Error: "),
        Supervisor(launch, tmp_path / "logs", patience=patience).healthy(),
    ):
        pass


def sessions_of(word: str) -> list[int]:
    """Return the processes of all sessions that one with this word in its command began."""
    commands: dict[int, str] = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            commands[int(file.parent.name)] = file.read_bytes().decode("utf-8", "replace")
    begun = {pid for pid, command in commands.items() if word in command}
    found = []
    for pid in commands:
        with suppress(ProcessLookupError):
            if os.getsid(pid) in begun:
                found.append(pid)
    return found
