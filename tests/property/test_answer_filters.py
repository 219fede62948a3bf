"""What holds for answer filters on any answers: nothing is lost, and shards do not matter."""

import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kitchen import cook, drops, rows

from stillroom.steps.answer import answer as answer_step

TEXT = st.sampled_from(
    [
        r"\boxed{4}",
        r"\boxed{4.0}",
        r"\boxed{8/2}",
        r"\boxed{5}",
        "",
        "```python\nx\n```",
        "答案",
        "four",
    ]
)
DRAWS = st.lists(
    st.tuples(st.none() | st.text("ab \n", max_size=6), TEXT, st.sampled_from(["stop", "length"])),
    min_size=1,
    max_size=5,
)
FILTERS = st.lists(
    st.sampled_from(
        [
            ["label: majority", "keep: {where: {in_majority: true}}"],
            ["verify: math", "keep: {where: {verdict: correct}}"],
            ["label: format", "keep: {where: {truncated: false, boxes: 1}}"],
            ["label: language", "keep: {where: {foreign_share: {max: 0.1}}}"],
            ["label: paragraphs", "keep: {where: {longest_paragraph: {max: 10}}}"],
            ["label: {repetition: 1}", "keep: {where: {repeats: {max: 1}}}"],
            [
                "label: {length: {of: [reasoning, answer]}}",
                "keep: {top: 2, by: length, per: question_id}",
            ],
            ["take: {n: 1, per: question_id}"],
        ]
    ),
    min_size=1,
    max_size=3,
    unique_by=str,
)


@settings(max_examples=25)
@given(DRAWS, FILTERS, st.integers(1, 4), st.integers(1, 12))
def test_rows_in_are_rows_out_and_reasons_whatever_the_shards(draws, filters, questions, size):
    steps = [
        f"{step}\n      as: s{place}_{number}"
        for place, chain in enumerate(filters)
        for number, step in enumerate(chain)
    ]
    kept = []
    for shard in (4096, size):
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(answer_step, "SHARD", shard),
        ):
            table, kitchen = cook(Path(folder), steps, draws, questions=questions)
            gone = [drops(b) for b in kitchen.built if b.artifact.manifest.delta == "drops"]
            assert table.height + sum(frame.height for frame in gone) == questions * len(draws)
            assert all(frame["reason"].null_count() == 0 for frame in gone)
            kept.append(sorted(row["id"] for row in rows(table, "id")))
    assert kept[0] == kept[1]
