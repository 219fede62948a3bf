"""`label: {perplexity: ...}`: scores against plain sums over logits, kept, counted, refused."""

import json
import math
from array import array

import pytest
from tests.kitchen import Kitchen, rows
from tests.tiny_checkpoints import SMALL, write_checkpoint

from stillroom.errors import ModelError
from stillroom.models.config import ModelsConfig, OpenAIEntry
from stillroom.models.ledger import Ledger
from stillroom.models.likelihoods import Likelihood, LocalScorer, Passage
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


def test_server_is_refused_in_one_message(kitchen):
    kitchen.models = ModelsConfig({TEACHER: OpenAIEntry(engine="openai", base_url="http://x/v1")})
    with pytest.raises(ModelError, match=r"the openai engine does not tell how likely a text is"):
        kitchen.run(SOURCE + LABEL)
