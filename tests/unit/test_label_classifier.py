"""The classifier, token counts and solve rates."""

import json

import pytest
from tests.fakes import FakeModel, FakeModels
from tests.kitchen import Kitchen, rows

from stillroom.errors import SetupError, SourceError
from stillroom.models.chat import Completion, Failure
from stillroom.models.ledger import Ledger
from stillroom.steps.label.fasttext import Training, plain, train
from stillroom.steps.label.label import Label

SMALL = "{buckets: 2000, epoch: 20}"


def write(path, *rows_):
    lines = [r if isinstance(r, dict) else {"question": r} for r in rows_]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def examples(tmp_path, n=200):
    good = [f"Prove that the number {i} is prime and find all x" for i in range(n)]
    bad = [f"select column {i} from table where name is bob" for i in range(n)]
    return write(tmp_path / "good.jsonl", *good), write(tmp_path / "bad.jsonl", *bad)


def test_classifier_tells_good_from_bad_and_says_who_it_is(tmp_path):
    good, bad = examples(tmp_path)
    questions = ["Prove that\n\nx is prime", "select name from table", "Find all prime x"]
    source = write(tmp_path / "q.jsonl", *questions)
    kitchen = Kitchen(tmp_path / "store")
    steps = (
        f"- source: {{file: {source}}}\n"
        f"- label: {{classifier: {{positives: {good}, negatives: [{bad}], training: {SMALL}}}}}"
    )
    table = rows(kitchen.chain(steps))
    values = [r["classifier"] for r in table]
    assert values[0] > 0.8 > 0.2 > values[1]
    assert values[2] > 0.8
    assert table[0]["classifier_engine"].startswith("floret 0.")
    again = Kitchen(tmp_path / "other store")
    assert [r["classifier"] for r in rows(again.chain(steps))] == values
    kitchen.chain(steps)
    assert kitchen.fresh() == []
    write(good, "Prove nothing at all")
    kitchen.chain(steps)
    assert kitchen.fresh() == ["math.label"]


def test_classifier_reads_several_columns_and_leaves_texts_without_words_null(tmp_path):
    good, bad = examples(tmp_path)
    lines = [{"question": "?", "more": "select from table"}, {"question": "Prove x", "more": None}]
    source = write(tmp_path / "q.jsonl", *lines)
    kitchen = Kitchen(tmp_path / "store")
    step = f"positives: {good}, negatives: {bad}, training: {SMALL}"
    chain = f"- source: {{file: {source}, columns: [more]}}\n- label: {{classifier: {{{step}, of: "
    both = rows(kitchen.chain(chain + "[question, more]}}"))
    assert both[0]["classifier"] < 0.2 < 0.8 < both[1]["classifier"]
    more = rows(kitchen.chain(chain + "more}}"))
    assert more[1]["classifier"] is None


def test_hyper_parameters_are_those_of_the_paper():
    assert Training().model_dump(exclude={"seed", "buckets"}) == {
        "dim": 256, "epoch": 3, "lr": 0.1, "word_ngrams": 2, "min_count": 3}  # fmt: skip


def test_text_cannot_pass_for_a_label():
    hostile = ["__label__QA_doc " * 5 + "select from table"]
    trained = train(["prove it"] * 9, ["select from table"] * 9, Training(buckets=50, min_count=1))
    assert trained.good(hostile) == trained.good([plain(hostile[0])])
    assert "__label__" not in plain("x__label____label__y")


def test_examples_without_a_known_word_are_one_message():
    with pytest.raises(SetupError, match="cannot be trained on 2 examples"):
        train(["one"], ["two"], Training(buckets=50, min_count=3))


def test_set_without_examples_is_one_message(tmp_path):
    good, _ = examples(tmp_path)
    empty = write(tmp_path / "bad.jsonl", " ")
    source = write(tmp_path / "q.jsonl", "x?")
    step = f"- label: {{classifier: {{positives: {good}, negatives: {empty}}}}}"
    with pytest.raises(SourceError, match="bad: no examples"):
        Kitchen(tmp_path / "store").chain(f"- source: {{file: {source}}}\n{step}")


def test_new_defaults_of_sources_do_not_enter_the_key_of_a_label(tmp_path):
    label = Label(classifier={"positives": "a.jsonl", "negatives": "b.jsonl"})
    assert label.identity()["classifier"]["positives"]["a"].keys() >= {"file", "name"}
    assert None not in label.identity()["classifier"]["positives"]["a"].values()


# Tokens


def embedded_tokenizer():
    from pathlib import Path

    import stillroom.models

    return Path(stillroom.models.__file__).parent / "embedded" / "teacher-1" / "tokenizer.json"


def test_tokens_are_those_of_the_tokenizer(tmp_path):
    from tokenizers import Tokenizer

    questions = ["What is 2+2?", "x " * 5000, "Wie groß?"]
    source = write(tmp_path / "q.jsonl", *questions)
    step = f"- label: {{tokens: {{tokenizer: {embedded_tokenizer()}}}}}"
    table = Kitchen(tmp_path / "store").chain(f"- source: {{file: {source}}}\n{step}")
    tokenizer = Tokenizer.from_file(str(embedded_tokenizer()))
    wanted = [len(tokenizer.encode(q, add_special_tokens=False).ids) for q in questions]
    assert [r["tokens"] for r in rows(table)] == wanted
    assert wanted[1] >= 5000


def test_tokenizer_that_is_missing_or_broken_is_one_message(tmp_path):
    source = write(tmp_path / "q.jsonl", "x?")
    chain = f"- source: {{file: {source}}}\n- label: {{tokens: {{tokenizer: {{}}}}}}"
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for path, words in ((tmp_path / "none.json", "no such tokenizer"), (broken, "cannot be read")):
        with pytest.raises(SourceError, match=words):
            Kitchen(tmp_path / "store").chain(chain.replace("{}", str(path)))


# Solve rates


REFERENCES = [("Two?", "2"), ("Three?", "3"), ("Open?", None), ("Silent?", "5"), ("Lost?", "6")]


def sometimes(request):
    """Answer 2 in even draws and 3 in odd ones; say nothing, or fail, where asked to."""
    question = request.messages[-1].content
    if "Lost" in question:
        return Failure("refused", "no")
    said = "I do not know." if "Silent" in question else f"\\boxed{{{2 + request.draw % 2}}}"
    return Completion(None, said, "stop", 1, 1)


@pytest.fixture
def probing(tmp_path):
    """Give a function that runs steps after questions, and the model that they ask."""
    lines = [{"question": q, "reference": r} for q, r in REFERENCES]
    source = write(tmp_path / "q.jsonl", *lines)
    model = FakeModel(sometimes)
    with Ledger(tmp_path / "ledger") as ledger:
        kitchen = Kitchen(tmp_path / "store", {}, FakeModels(model), lambda: ledger)

        def run(steps):
            text = (
                "name: t\nmodels: {prober: {name: some/prober, temperature: 0.7}}\n"
                f"domains:\n  math: [{{source: {{file: {source}}}}}, {steps}]\n"
            )
            return rows(kitchen.run(text)["math"])

        yield run, model, kitchen


def test_solve_rate_counts_decided_draws_and_asks_only_where_a_reference_is(probing):
    run, model, kitchen = probing
    found = run("{label: {solve_rate: {model: prober, draws: 5}}}")
    told = [(r["solve_rate"], r["solve_rate_correct"], r["solve_rate_decided"]) for r in found]
    assert told == [(0.6, 3, 5), (0.4, 2, 5), (None, None, None), (None, 0, 0), (None, 0, 0)]
    assert model.asked.total() == 4 * 5
    assert found[0]["solve_rate_by"].startswith("some/prober, 5 draws, temperature 0.7, math/")
    assert kitchen.built[-1].artifact.manifest.notes == [
        "2 of 5 rows have no value in solve_rate: no draw was decided.",
        "1 of 5 rows have no value in solve_rate: no reference.",
    ]


def test_solve_rate_and_answer_share_their_draws(probing):
    run, model, _ = probing
    model.reply = lambda request: Completion(None, "\\boxed{2}", "stop", 1, 1)
    run("{label: {solve_rate: {model: prober, draws: 4}}}, {answer: {model: prober, draws: 6}}")
    assert model.asked.total() == 5 * 6
    run("{label: {solve_rate: {model: prober, draws: 6}}}")
    assert model.asked.total() == 5 * 6
