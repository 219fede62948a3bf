"""`label: {perplexity: ...}`: scores against plain sums over logits, kept, counted, refused."""

import json
import math
from array import array

import pytest
from aiohttp import web
from tests.kitchen import Kitchen, rows
from tests.servers import TeacherServer
from tests.tiny_checkpoints import SMALL, write_checkpoint

from stillroom.errors import ModelError
from stillroom.models.config import ModelsConfig, OpenAIEntry, ReplayEntry
from stillroom.models.endpoint import Endpoint
from stillroom.models.ledger import Ledger
from stillroom.models.likelihoods import Likelihood, LocalScorer, Passage, ServedScorer
from stillroom.models.local import _engine
from stillroom.models.local.checkpoint import Checkpoint
from stillroom.run.planner import totals

TEACHER = "stillroom/teacher-1"


def by_logits(model, tokens):
    """Log-probabilities in plain Python."""
    logits = memoryview(model.logits(array("i", tokens))).cast("f")
    width = len(logits) // len(tokens)
    found = []
    for pos, token in enumerate(tokens[1:]):
        row = logits[pos * width : (pos + 1) * width]
        most = max(row)
        found.append(row[token] - most - math.log(math.fsum(math.exp(x - most) for x in row)))
    return found


@pytest.mark.parametrize("more", [0, 1, 15, 33])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129])
def test_likelihoods_are_those_of_the_logits_for_every_vocabulary_and_length(tmp_path, more, n):
    write_checkpoint(tmp_path, vocab_size=SMALL["vocab_size"] + more)
    model = Checkpoint(tmp_path).model
    tokens = [(7 * i + i * i) % SMALL["vocab_size"] for i in range(n)]
    found = memoryview(model.likelihoods(array("i", tokens))).cast("d").tolist()
    assert found == pytest.approx(by_logits(model, tokens), abs=2e-5)


def test_instruction_sets_threads_and_neighbours_change_no_bit():
    checkpoint = ModelsConfig({}).scorer(TEACHER).checkpoint
    texts = [Passage("12 + 30 = 42", "What is 12 + 30?\n\n"), Passage("a b c"), Passage("7" * 90)]
    alone = [next(LocalScorer(checkpoint, name="t", threads=1).score([t])) for t in texts]
    assert list(LocalScorer(checkpoint, name="t", threads=3).score(texts * 9)) == alone * 9
    assert all(isinstance(score, Likelihood) and score.total < 0 for score in alone)


def test_kernels_agree_to_the_bit(tmp_path):
    write_checkpoint(tmp_path)
    tokens = array("i", [1, 2, 3, 4, 5] * 20)
    found = {Checkpoint(tmp_path, kernels=k).model.likelihoods(tokens) for k in _engine.supported()}
    assert len(found) == 1


def test_what_is_given_is_not_scored_and_text_beyond_the_context_is_said_to_be():
    scorer = ModelsConfig({}).scorer(TEACHER)
    (apart,) = scorer.score([Passage("42", "What is 12 + 30?\n\n")])
    assert isinstance(apart, Likelihood)
    assert apart.tokens == len(scorer.checkpoint.tokens("42"))
    found = list(scorer.score([Passage("x" * 5_000), Passage(""), Passage("", "Why?")]))
    assert found[0] == f"the text is longer than the 1,024 tokens that {TEACHER} reads"
    assert found[1:] == ["the text has no token to score"] * 2


@pytest.fixture
def kitchen(tmp_path):
    questions = ["What is 12 + 30?", "What is 12 + 30?", "zq xv zq xv", "long " * 1_000]
    lines = [json.dumps({"question": q, "reference": "42"}) for q in questions]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    with Ledger(tmp_path / "ledger") as ledger:
        yield Kitchen(tmp_path / "store", {"q": str(tmp_path / "q.jsonl")}, None, lambda: ledger)


SOURCE = (
    f"name: t\nmodels: {{scorer: {{name: {TEACHER}}}}}\ndomains:\n  math:\n"
    "    - source: {file: q.jsonl}\n"
)
LABEL = "    - label: perplexity\n"


def test_step_measures_notes_and_keeps(kitchen, monkeypatch):
    kitchen.models = ModelsConfig({})
    kitchen.run(SOURCE)
    assert totals(kitchen.plan(SOURCE + LABEL)) == [f"{TEACHER}: 3 texts"]
    found = rows(kitchen.run(SOURCE + LABEL)["math"])
    first, again, odd, long = (row["perplexity"] for row in found)
    assert 1 < first == again != odd
    assert long is None
    assert [row["perplexity_tokens"] is None for row in found] == [False, False, False, True]
    assert kitchen.built[-1].artifact.manifest.notes == [
        "1 of 4 rows have no value in perplexity: the text is longer than the 1,024 tokens that "
        f"{TEACHER} reads."
    ]
    other = "    - label: {perplexity: {model: scorer, column: p}}\n"
    assert totals(kitchen.plan(SOURCE + other)) == [f"{TEACHER}: 1 texts"]
    scored = []
    monkeypatch.setattr(LocalScorer, "_score", lambda self, p: scored.append(p) or "no")
    assert [row["p"] for row in rows(kitchen.run(SOURCE + other)["math"])][:3] == [
        first,
        again,
        odd,
    ]
    assert len(scored) == 1


def test_answer_is_measured_given_its_question(kitchen):
    kitchen.models = ModelsConfig({})
    label = "    - label: {perplexity: {of: reference, given: question}}\n"
    found = rows(kitchen.run(SOURCE + label)["math"])
    (score,) = kitchen.models.scorer(TEACHER).score([Passage("42", "What is 12 + 30?\n\n")])
    assert isinstance(score, Likelihood)
    assert found[0]["perplexity"] == math.exp(-score.total / score.tokens)


class ScoringServer(TeacherServer):
    """A server of completions that echoes the scores of the prompt, those of the local model.

    Attributes:
        behave: Returns the reply to a call in place of the scores, or None.
    """

    def __init__(self, behave=lambda number: None):
        super().__init__()
        self.behave = behave
        self.checkpoint = ModelsConfig({}).scorer(TEACHER).checkpoint

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.calls["all"] += 1
        if (reply := self.behave(self.calls["all"])) is not None:
            return reply
        tokens = array("i", self.checkpoint.tokens(body["prompt"]))
        if len(tokens) > self.checkpoint.sizes.context:
            return web.json_response({"message": "too long"}, status=400)
        scores = memoryview(self.checkpoint.model.likelihoods(tokens)).cast("d").tolist()
        assert body["echo"] is True
        assert body["max_tokens"] == 1
        choice = {"logprobs": {"token_logprobs": [None, *scores, -0.5]}}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": len(tokens)}})

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/completions", self._complete)


def entry(server):
    return OpenAIEntry(engine="openai", base_url=server.url)


@pytest.mark.parametrize("given", ["", ", given: reference"])
def test_server_that_echoes_gives_what_the_model_gives_here(kitchen, given):
    label = f"    - label: {{perplexity: {{model: scorer{given}}}}}\n"
    kitchen.models = ModelsConfig({})
    *here, _ = rows(kitchen.run(SOURCE + label)["math"])
    served = SOURCE.replace(TEACHER, "some/model")
    with ScoringServer() as server:
        kitchen.models = ModelsConfig({"some/model": entry(server)})
        *there, long = rows(kitchen.run(served + label)["math"])
        assert server.total == (6 if given else 3), "each text is asked for once"
    for a, b in zip(here, there, strict=True):
        assert b["perplexity"] == pytest.approx(a["perplexity"], rel=1e-6)
        assert b["perplexity_tokens"] == a["perplexity_tokens"]
    assert long["perplexity"] is None
    assert kitchen.built[-1].artifact.manifest.notes == [
        "1 of 4 rows have no value in perplexity: the server refused the text."
    ]


def scorer_of(server):
    place = Endpoint("m", [server.url], "/completions", "scores", served_name="m", pause_s=0.001)
    return ServedScorer(place, concurrency=2)


def reply(scores, tokens=3):
    choice = {"logprobs": scores and {"token_logprobs": scores}}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": tokens}})


BROKEN = {
    "busy": lambda: web.Response(status=503),
    "no JSON": lambda: web.Response(text="<html>"),
    "no usage": lambda: web.json_response({"choices": [{"logprobs": {"token_logprobs": []}}]}),
    "a hole": lambda: reply([None, -1.0, None]),
    "a chance above one": lambda: reply([None, -1.0, 2.0]),
    "no number": lambda: reply([None, -1.0, "x"]),
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_broken_reply_is_asked_for_again(make):
    with ScoringServer(lambda number: make() if number < 3 else None) as server:
        (found,) = scorer_of(server).score([Passage("What is 12 + 30?")])
        assert server.total == 3
    (here,) = ModelsConfig({}).scorer(TEACHER).score([Passage("What is 12 + 30?")])
    assert found.total == pytest.approx(here.total)


@pytest.mark.parametrize("scores", [None, [-0.5]])
def test_server_that_scores_no_prompts_is_named_at_once(scores):
    with ScoringServer(lambda number: reply(scores)) as server:
        with pytest.raises(ModelError, match="expected a server that scores prompts"):
            list(scorer_of(server).score([Passage("What?")]))
        assert server.total == 1


def test_text_of_one_token_and_no_text_have_no_score():
    with ScoringServer(lambda number: reply([None], tokens=1)) as server:
        found = list(scorer_of(server).score([Passage("a"), Passage("")]))
    assert found == ["the text has no token to score"] * 2


def test_engine_that_scores_nothing_is_refused_in_one_message(kitchen):
    kitchen.models = ModelsConfig({TEACHER: ReplayEntry(engine="replay")})
    with pytest.raises(ModelError, match=r"the replay engine does not tell how likely a text is"):
        kitchen.run(SOURCE + LABEL)
