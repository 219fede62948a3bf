"""Several verifiers in a row: who decides, what is kept of the others, and what breaks what."""

import pytest
from tests.judges import compares, honest, replying, says
from tests.kitchen import MODELS, cook, drops, rows

from stillroom.errors import RecipeError, SetupError
from stillroom.models.ledger import Ledger
from stillroom.verifiers import Task, Verdict, verifier
from stillroom.verifiers.canaries import MOST_FIRST
from stillroom.verifiers.cascade import Alone, Cascade, Sturdy
from stillroom.verifiers.vote import MajorityStage

WORDS = {"c": "correct", "i": "incorrect", "u": "unparsed", "n": "no_reference", "e": "error"}


class Fixed:
    """Says what stands at its place in the answer; an ``x`` breaks it."""

    def __init__(self, place, broken=None):
        self.name = f"fixed/{place}"
        self.place = place
        self.broken = broken or RuntimeError("it broke")
        self.seen = []

    def verify(self, tasks):
        self.seen += [task.answer for task in tasks]
        if any(task.answer[self.place] == "x" for task in tasks):
            raise self.broken
        return [Verdict(WORDS[t.answer[self.place]], None, None, None, self.name) for t in tasks]


def run(*answers, also_incorrect=False):
    first, second = Fixed(0), Fixed(1)
    stages = [Alone("first", Sturdy(first)), Alone("second", Sturdy(second), also_incorrect)]
    found = Cascade(stages).verify([Task(answer, "4") for answer in answers])
    return found, first, second


@pytest.mark.parametrize(
    ("answer", "outcome", "who", "detail"),
    [
        ("c?", "correct", 0, None),
        ("i?", "incorrect", 0, None),
        ("uc", "correct", 1, "first: unparsed"),
        ("ui", "incorrect", 1, "first: unparsed"),
        ("nc", "correct", 1, "first: no_reference"),
        ("ei", "incorrect", 1, "first: error"),
        ("uu", "unparsed", 0, "second: unparsed"),
        ("un", "unparsed", 0, "second: no_reference"),
        ("nu", "unparsed", 1, "first: no_reference"),
        ("ue", "error", 1, "first: unparsed"),
        ("eu", "error", 0, "second: unparsed"),
        ("nn", "no_reference", 0, "second: no_reference"),
        ("xc", "correct", 1, "first: error, crashed: RuntimeError: it broke"),
        ("xx", "error", 0, "crashed: RuntimeError: it broke | second: error, crashed: "
                           "RuntimeError: it broke"),
    ],
)  # fmt: skip
def test_first_that_can_decide_does_and_the_others_are_kept(answer, outcome, who, detail):
    (found,), _, _ = run(answer)
    assert (found.outcome, found.verifier, found.detail) == (outcome, f"fixed/{who}", detail)


@pytest.mark.parametrize(
    ("answer", "outcome", "who"),
    [("ic", "correct", 1), ("ii", "incorrect", 1), ("iu", "incorrect", 0), ("ie", "incorrect", 0),
     ("c?", "correct", 0), ("ix", "incorrect", 0)],
)  # fmt: skip
def test_stage_may_look_again_at_what_was_incorrect(answer, outcome, who):
    (found,), _, _ = run(answer, also_incorrect=True)
    assert (found.outcome, found.verifier) == (outcome, f"fixed/{who}")


def test_answer_that_breaks_a_stage_is_alone_in_it():
    found, first, _ = run(*["c?"] * 37, "xu", *["c?"] * 26)
    assert [v.outcome for v in found] == ["correct"] * 37 + ["error"] + ["correct"] * 26
    assert len(first.seen) < 64 * 8  # found by halves


def test_stage_that_cannot_work_at_all_stops_the_run():
    stage = Sturdy(Fixed(0, SetupError("no sandbox")))
    with pytest.raises(SetupError, match="no sandbox"):
        Cascade([Alone("first", stage), Alone("second", Fixed(1))]).verify([Task("xc", "4")])


def test_later_stages_see_only_what_is_open():
    _, _, second = run("c?", "uc", "i?", "nu")
    assert second.seen == ["uc", "nu"]


def test_long_words_of_other_stages_are_cut():
    class Wordy(Fixed):
        def verify(self, tasks):
            return [Verdict("unparsed", None, None, "w" * 999, self.name) for _ in tasks]

    stages = [Alone("first", Wordy(0)), Alone("second", Fixed(0))]
    (found,) = Cascade(stages).verify([Task("c", "4")])
    assert found.outcome == "correct"
    assert len(found.detail) < 150


def vote(draws, before, *, reference="4", votes=2, share=0.5, as_reference=False):
    """Let draws of one question vote; ``before`` holds a letter of `WORDS` for each."""
    tasks = [Task(rf"\boxed{{{d}}}" if d else "hm", reference, question_id="q") for d in draws]
    standing = [Verdict(WORDS[b], None, None, None, "rule") for b in before]
    with verifier("math") as math:
        found = MajorityStage(math, "math", votes, share, as_reference).look(tasks, standing)
    return ["-" if i not in found else found[i].outcome[0] for i in range(len(draws))]


class TestMajority:
    def test_without_a_reference_it_decides_nothing(self):
        assert vote("777", "nnn", reference=None) == ["n"] * 3

    def test_in_place_of_a_reference_only_if_the_recipe_says_so(self):
        found = vote(["7", "7.0", "14/2", "8", "x+y", ""], "nnnnnn", reference=None,
                     as_reference=True)  # fmt: skip
        assert found == ["c", "c", "c", "i", "i", "n"]

    def test_answer_that_cannot_be_compared_with_the_majority_stays_open(self):
        draws = ["7", "7", "7", "seven or so, if one may say it"]
        found = vote(draws, "nnnn", reference=None, as_reference=True)
        assert found == ["c", "c", "c", "n"]

    def test_with_a_reference_it_carries_over_what_others_of_it_got(self):
        assert vote("5558", "iueu") == ["-", "i", "i", "u"]
        assert vote("4448", "cueu") == ["-", "c", "c", "u"]

    def test_agreement_alone_decides_nothing(self):
        assert vote("555", "uuu") == ["u"] * 3
        assert vote("555", "uuu", as_reference=True) == ["u"] * 3  # there is a reference

    def test_verdicts_that_contradict_each_other_decide_nothing(self):
        assert vote("555", "ciu") == ["-", "-", "u"]

    @pytest.mark.parametrize(
        ("draws", "votes", "share"),
        [("7788", 2, 0.4), ("778", 3, 0.5), ("7789", 2, 0.5), ("", 2, 0)],
    )
    def test_tie_few_votes_and_small_share_are_no_majority(self, draws, votes, share):
        before = "n" * len(draws)
        found = vote(draws, before, reference=None, votes=votes, share=share, as_reference=True)
        assert found == ["n"] * len(draws)

    def test_questions_vote_apart(self):
        tasks = [Task(r"\boxed{7}", None, question_id=str(i)) for i in range(3)]
        with verifier("math") as math:
            stage = MajorityStage(math, "math", 2, 0.5, True)
            found = stage.look(tasks, [None] * 3)
        assert {v.outcome for v in found.values()} == {"no_reference"}


class TestStep:
    def test_judge_decides_what_rules_cannot(self, tmp_path):
        texts = [r"\boxed{4}", r"\boxed{5}", r"\boxed{the number of seasons}", "?"]
        seen = []

        def rule(question, reference, given):
            seen.append(given)
            return says("correct" if "seasons" in given else "incorrect", "there are four")

        table, _ = cook(tmp_path, ["verify: [math, {judge: grader}]"], texts,
                        judge=replying(rule))  # fmt: skip
        found = rows(table, "verdict", "verifier", "verdict_detail")
        assert [r["verdict"] for r in found] == ["correct", "incorrect", "correct", "unparsed"]
        assert [r["verifier"].split("/")[0] for r in found] == ["math", "math", "judge", "math"]
        assert found[2]["verdict_detail"].startswith("there are four | math: unparsed, ")
        assert "judge: unparsed, nothing in the answer" in found[3]["verdict_detail"]
        assert set(seen) - {"", ":", "5"} == {"the number of seasons"}

    def test_judge_looks_at_negatives_only_when_told_to(self, tmp_path):
        def judge(request):
            def rule(question, reference, given):
                return says("correct") if given == "5" else compares(question, reference, given)

            return replying(rule)(request)

        texts = [r"\boxed{5}"]
        for name, fields, wanted in [
            ("a", "{model: grader}", "incorrect"),
            ("b", "{model: grader, also_incorrect: true}", "correct"),
        ]:
            (tmp_path / name).mkdir()
            step = f"verify: [math, {{judge: {fields}}}]"
            # Without a digit in the reference there is no canary that this judge would accept.
            table, _ = cook(tmp_path / name, [step], texts, reference="x", judge=judge)
            assert [r["verdict"] for r in rows(table, "verdict")] == [wanted]

    def test_all_stages_and_the_filter_behind_lose_no_row(self, tmp_path):
        step = "verify: [math, exact, {judge: grader}, {majority: {votes: 2, as_reference: true}}]"
        texts = [r"\boxed{7}", r"\boxed{7.0}", r"\boxed{9}", "no idea at all"]
        table, kitchen = cook(
            tmp_path,
            [step, "keep: {where: {verdict: correct}}"],
            texts,
            reference=None,
            questions=3,
        )
        assert table.height == 6
        assert drops(kitchen.built[-1]).height == 6
        assert {r["verifier"].split()[0] for r in rows(table, "verifier")} == {"majority/1"}
        assert {r["verdict_detail"] for r in rows(table, "verdict_detail")} == {
            "agrees with the majority, 2 of 3 final answers | math: no_reference | "
            "exact: no_reference | judge: no_reference"
        }

    def test_plan_bounds_a_judge_behind_rules(self, tmp_path):
        _, kitchen = cook(tmp_path, [], [r"\boxed{4}", "in words"], judge=honest)
        text = (
            f"{MODELS}    - source: {{file: {tmp_path / 'q.jsonl'}}}\n"
            "    - answer: {draws: 2}\n    - verify: [math, {judge: grader}]\n"
        )
        with Ledger(tmp_path / "ledger") as ledger:
            kitchen.ledger = lambda: ledger
            calls = kitchen.plan(text)[-1].calls
        assert calls.bound
        assert 2 <= calls.missing <= 2 + MOST_FIRST + 1


def test_workers_do_not_matter():
    texts = [
        r"\sin^2 x + \cos^2 x",
        r"\int_0^1 2x\,dx",
        r"\sqrt{3+2\sqrt{2}}",
        "1",
        r"\frac{",
        "no",
    ]
    tasks = [
        Task(rf"\boxed{{{text}}}", reference, question_id=reference or "none")
        for text in texts
        for reference in ("1", r"1+\sqrt{2}", None)
    ]
    seen = []
    for workers in (1, 3):
        with verifier("math", workers=workers) as math:
            stages = [Alone("math", Sturdy(math)), MajorityStage(math, "math", 2, 0.2, True)]
            seen.append(Cascade(stages).verify(tasks))
    assert seen[0] == seen[1]
    assert {v.outcome for v in seen[0]} >= {"correct", "incorrect", "unparsed"}


def test_a_recipe_takes_letters_or_numbers_by_what_the_reference_is(tmp_path):
    steps = ["verify: [letters, {number: 0.01}]"]
    texts = [r"\boxed{AB}", r"\boxed{4.005}", r"\boxed{4.1}"]
    table, kitchen = cook(tmp_path, steps, texts, reference="4")
    found = table.scan("draw", "verdict", "verifier").collect().sort("draw")
    assert found["verdict"].to_list() == ["unparsed", "correct", "incorrect"]
    assert found["verifier"][1] == "number/1 within 0.01 relative 0"
    fields = kitchen.built[-1].artifact.manifest.fields
    assert fields == {"cascade": ["letters", {"number": {"within": 0.01, "relative": 0.0}}]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("[{number: -1}]", "greater than or equal to 0"),
        ("[{number: 1, judge: x}]", "number and judge given; expected one of by, number"),
        ("[number, number]", "the cascade has number twice"),
    ],
)
def test_a_stage_of_numbers_is_checked(tmp_path, given, words):
    with pytest.raises(RecipeError, match=words):
        cook(tmp_path, [f"verify: {given}"], ["x"])
