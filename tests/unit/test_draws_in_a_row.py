"""Draws that follow each other, with one seed: none undoes what another one did."""

import json
from collections import Counter

import pytest
from tests.kitchen import Kitchen, rows


@pytest.fixture
def kitchen(tmp_path):
    return Kitchen(tmp_path / "store")


@pytest.fixture
def branches(tmp_path):
    """Two branches of 2,000 questions: kind a or b, and a grade from 0 to 9."""
    parts = []
    for kind in "ab":
        path = tmp_path / f"{kind}.jsonl"
        made = [{"question": f"{kind} {i}?", "kind": kind, "n": i % 10} for i in range(2_000)]
        path.write_text("".join(json.dumps(row) + "\n" for row in made))
        parts.append(f"{kind}: [{{source: {{file: {path}, columns: {{n: number, kind: text}}}}}}]")
    return "{" + ", ".join(parts) + "}"


def count(table, column):
    return Counter(row[column] for row in rows(table, column))


WEIGHED = "total: 2000, weights: {a: 1, b: 9}"


@pytest.mark.parametrize(
    "more", ["", "- take: 1000\n", "- take: {n: 1000, per: kind}\n"], ids=["mix", "take", "per"]
)
def test_sample_of_a_weighted_mix_has_its_weights(kitchen, branches, more):
    weights = {"": 0.1, "- take: 1000\n": 0.1}.get(more, 200 / 1200)
    table = kitchen.chain(
        f"- mix: {{branches: {branches}, {WEIGHED}}}\n{more}- {{as: last, take: 500}}"
    )
    expected = 500 * weights
    assert abs(count(table, "kind")["a"] - expected) < 4 * (expected * (1 - weights)) ** 0.5


def test_first_rows_of_a_weighted_mix_have_its_weights(kitchen, branches):
    table = kitchen.chain(f"- mix: {{branches: {branches}, {WEIGHED}}}")
    first = [row["kind"] for row in rows(table, "kind")][:500]
    assert 50 - 27 < first.count("a") < 50 + 27


def test_mix_in_a_mix_keeps_the_weights_of_both(kitchen, branches, tmp_path):
    inner = f"{{mix: {{branches: {branches}, {WEIGHED}}}}}"
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"question": f"c {i}?"}) + "\n" for i in range(2_000)))
    outer = f"{{one: [{inner}], two: [{{source: {{file: {path}}}}}]}}"
    table = kitchen.chain(f"- mix: {{branches: {outer}, total: 1000, weights: {{one: 1, two: 1}}}}")
    assert 50 - 26 < count(table, "kind")["a"] < 50 + 26


def test_sample_after_equal_numbers_of_each_group_is_of_both(kitchen, branches):
    mixed = f"- mix: {{branches: {branches}, total: 2000, weights: {{a: 1, b: 19}}}}"
    for way in ("{n: 100, per: kind}", "{n: 200, across: kind}"):
        table = kitchen.chain(f"{mixed}\n- take: {way}\n- {{as: last, take: 100}}")
        assert 50 - 20 < count(table, "kind")["a"] < 50 + 20


def test_sample_of_a_top_half_does_not_prefer_those_that_were_tied(kitchen, branches):
    # Grades 9 and 8 are in whole, and half of those with 7: 1,000 of 4,000.
    table = kitchen.chain(f"- mix: {branches}\n- keep: {{top: 25%, by: n}}\n- take: 250")
    assert 50 - 26 < count(table, "n")[7] < 50 + 26


def test_sample_of_a_weighed_sample_does_not_prefer_the_heavy_ones(kitchen, branches):
    source = f"- mix: {branches}\n"
    weighed = kitchen.chain(f"{source}- take: {{n: 1000, weight: n}}")
    sample = kitchen.chain(f"{source}- take: {{n: 1000, weight: n}}\n- {{as: last, take: 250}}")
    before, after = count(weighed, "n"), count(sample, "n")
    light = sum(before[n] for n in (1, 2, 3)) / 1000
    assert abs(sum(after[n] for n in (1, 2, 3)) - 250 * light) < 4 * (250 * light) ** 0.5


def test_draws_of_one_purpose_are_nested(kitchen, branches):
    source = f"- mix: {branches}\n"
    for way in ("", ", per: kind", ", weight: n", ", across: kind"):
        few = kitchen.chain(f"{source}- take: {{n: 100{way}}}")
        both = kitchen.chain(
            f"{source}- take: {{n: 500{way}}}\n- {{as: last, take: {{n: 100{way}}}}}"
        )
        assert {r["id"] for r in rows(few, "id")} == {r["id"] for r in rows(both, "id")}


DRAWS = ["take: {}", "keep: {{top: {}, by: one}}", "upsample: {}"]


@pytest.mark.parametrize("draw", DRAWS)
def test_draw_after_a_mix_does_not_prefer_the_branch_that_gave_few_of_its_rows(
    kitchen, tmp_path, draw
):
    parts = []
    for kind, n in (("a", 6_000), ("b", 600)):
        path = tmp_path / f"{kind}.jsonl"
        made = [{"question": f"{kind} {i}?", "kind": kind, "one": 1} for i in range(n)]
        path.write_text("".join(json.dumps(row) + "\n" for row in made))
        source = f"{{source: {{file: {path}, columns: {{one: integer, kind: text}}}}}}"
        parts.append(f"{kind}: [{source}, {{{draw.format(300)}}}]")
    inner = "{" + ", ".join(parts) + "}"
    for mixed in (
        f"- mix: {inner}",
        f"- mix: {{both: [{{mix: {inner}}}, {{{draw.format(500)}}}]}}",
    ):
        table = kitchen.chain(f"{mixed}\n- {draw.format(200)}")
        assert table.height == 200
        assert 100 - 29 < count(table, "kind")["a"] < 100 + 29


def test_sample_after_upsample_does_not_prefer_originals(kitchen, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i}?"}) + "\n" for i in range(5_000)))
    source = f"- source: {{file: {path}}}\n- take: 400\n- upsample: 800\n"
    table = kitchen.chain(f"{source}- {{as: last, take: 200}}")
    assert 100 - 29 < count(table, "copy_of")[None] < 100 + 29


def test_draws_of_a_branch_are_nested(kitchen, branches):
    few, many = (
        kitchen.chain(f"- mix: {{only: [{{mix: {branches}}}, {{take: {n}}}]}}") for n in (100, 500)
    )
    assert {r["id"] for r in rows(few, "id")} < {r["id"] for r in rows(many, "id")}


def test_rank_of_equal_rows_is_drawn_apart_from_their_turn(kitchen, tmp_path):
    path = tmp_path / "a.jsonl"
    # In each of 4,000 groups three rows are tied and one is below them: its chance is 1 in 15.
    made = [{"question": f"{i}?", "group": f"{i // 4}", "n": i % 4 > 0} for i in range(16_000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    source = f"- source: {{file: {path}, columns: {{n: integer, group: text}}}}"
    table = kitchen.chain(f"{source}\n- take: {{n: 1, per: group, rank: n}}")
    expected = 4_000 / 15
    assert abs(count(table, "n")[0] - expected) < 4 * expected**0.5
