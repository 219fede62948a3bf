from hypothesis import assume, given
from hypothesis import strategies as st

from stillroom.text.answers import extract_answer, extract_choice
from stillroom.verifiers import Task, verifier
from stillroom.verifiers.math import MathVerifier, compare

# Enough of LaTeX to reach every rule, in any order.
COMMANDS = [r"\frac", r"\boxed", r"\text", r"\left", r"\right", r"\%", r"\$", r"\times", r"\\"]
PIECES = st.sampled_from(
    [*COMMANDS, *"{}()[]$^_,.:;-+/*= 0123456789xe%\n−½", "answer is ", "#### ", "**", "cm"]
)
LATEX = st.lists(PIECES, max_size=30).map("".join)
TEXTS = st.one_of(st.text(), LATEX)

WRITTEN = st.sampled_from(
    ["{}", "{}.", "${}$", "**{}**", r"\text{{{}}}", "{}.00", r"{}\text{{ cm}}", "{} apples", "x={}"]
)


@given(TEXTS)
def test_extraction_of_any_text_gives_part_of_it_or_nothing(text):
    for found in (extract_answer(text), extract_choice(text)):
        assert found is None or (
            found.text and found.text.replace("*", "") in text.replace("*", "")
        )


@given(TEXTS, TEXTS)
def test_compare_of_any_two_texts_never_fails(one, other):
    compare(one, other)


@given(TEXTS)
def test_compare_of_a_text_with_itself_is_never_wrong(text):
    assert compare(text, text)[0] in {"correct", "unparsed"}


@given(st.integers(-(10**12), 10**12), WRITTEN, st.booleans())
def test_math_integer_however_written_is_correct(value, written, grouped):
    answer = rf"\boxed{{{written.format(f'{value:,}' if grouped else value)}}}"
    with MathVerifier() as maths:
        assert maths.verify([Task(answer, str(value))])[0].outcome == "correct"


@given(st.integers(), st.integers(), WRITTEN)
def test_math_other_integer_however_written_is_incorrect(value, other, written):
    assume(value != other)
    with MathVerifier() as maths:
        [verdict] = maths.verify([Task(rf"\boxed{{{written.format(other)}}}", str(value))])
    assert verdict.outcome == "incorrect"


@given(
    st.lists(st.tuples(TEXTS, st.one_of(st.none(), st.text())), max_size=5),
    st.sampled_from(["choice", "exact"]),
)
def test_verifier_gives_one_verdict_for_each_task_whatever_the_batch(pairs, kind):
    tasks = [Task(answer, reference) for answer, reference in pairs]
    with verifier(kind) as opened:
        together = opened.verify(tasks)
        assert together == [verdict for task in tasks for verdict in opened.verify([task])]
    for task, verdict in zip(tasks, together, strict=True):
        no_reference = task.reference is None or not task.reference.strip()
        assert (verdict.outcome == "no_reference") == no_reference
