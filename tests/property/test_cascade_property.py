"""What holds for any cascade on any answers: shards, order and workers never matter."""

import json
import tempfile
from itertools import permutations
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.judges import replying, says
from tests.kitchen import cook, rows

from stillroom.steps.answer import answer as answer_step
from stillroom.verifiers import Task, verifier
from stillroom.verifiers.cascade import Alone, Cascade, Sturdy
from stillroom.verifiers.vote import MajorityStage

TEXT = st.sampled_from(
    [r"\boxed{4}", r"\boxed{8/2}", r"\boxed{5}", r"\boxed{5.0}", r"\boxed{the fourth one}", "four",
     "", ":", "It depends.", '{"verdict": "correct"}', r"\boxed{\frac{1}{}}"]
)  # fmt: skip
STAGES = ["math", "exact", "judge: {model: grader, also_incorrect: true}", "majority: {votes: 2}"]
ORDERS = [
    list(order)
    for n in range(1, 5)
    for order in permutations(STAGES, n)
    if order != ("majority: {votes: 2}",)
]
COLUMNS = ("id", "verdict", "extracted", "rule", "verifier", "verdict_detail")


def rule(question, reference, given):
    """Reply by the text alone: a verdict, no verdict, or nonsense. Canaries are seen through."""
    if given in ("", ":", "5", "7", "9") or given.isdigit():
        return says("incorrect")
    return [says("correct", given), says("incorrect", given), says("undecided"), "{"][
        len(given) % 4
    ]


@settings(max_examples=15)
@given(
    st.lists(TEXT, min_size=1, max_size=4),
    st.sampled_from(ORDERS),
    st.sampled_from(["4", None, "the fourth one"]),
    st.integers(1, 3),
    st.integers(1, 7),
)
def test_verdicts_do_not_depend_on_shards(draws, stages, reference, questions, size):
    step = f"verify: [{', '.join(s if ':' not in s else f'{{{s}}}' for s in stages)}]"
    seen = []
    for shard in (4096, size):
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(answer_step, "SHARD", shard),
        ):
            table, _ = cook(
                Path(folder), [step], draws, questions=questions, reference=reference,
                judge=replying(rule),
            )  # fmt: skip
            assert table.height == questions * len(draws)
            found = rows(table, *COLUMNS)
            assert {r["verdict"] for r in found} <= {
                "correct", "incorrect", "unparsed", "no_reference", "error"
            }  # fmt: skip
            if reference is None:
                assert {r["verdict"] for r in found} == {"no_reference"}
            seen.append(sorted(json.dumps(row) for row in found))
    assert seen[0] == seen[1]


ONE = st.tuples(
    st.sampled_from(["q", "r"]),
    st.sampled_from([r"\boxed{4}", r"\boxed{8/2}", r"\boxed{5}", r"\boxed{x}", "hm", ""]),
    st.sampled_from(["4", None]),
)


@settings(max_examples=50)
@given(st.lists(ONE, max_size=8), st.randoms(use_true_random=False), st.booleans())
def test_verdicts_do_not_depend_on_the_order_of_answers(answers, chance, as_reference):
    tasks = [Task(text, reference, question_id=q) for q, text, reference in answers]
    turned = list(range(len(tasks)))
    chance.shuffle(turned)
    with verifier("math") as math, verifier("exact") as exact:
        stages = [
            Alone("math", Sturdy(math)),
            Alone("exact", Sturdy(exact)),
            MajorityStage(math, "math", 2, 0.5, as_reference),
        ]
        found = Cascade(stages).verify(tasks)
        again = Cascade(stages).verify([tasks[place] for place in turned])
    assert again == [found[place] for place in turned]
    for task, verdict in zip(tasks, found, strict=True):
        if task.reference is None and not as_reference:
            assert verdict.outcome == "no_reference"
