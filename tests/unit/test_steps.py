"""What each step does to rows."""

import json
import re
from collections import Counter
from dataclasses import replace

import polars as pl
import pytest
from tests.fakes import FakeModel, FakeModels, echo
from tests.kitchen import Kitchen, drops, rows
from tests.tables import question_table

from stillroom.errors import RecipeError, SourceError
from stillroom.models.chat import Completion, Failure
from stillroom.models.ledger import Ledger
from stillroom.recipe.load import read_recipe
from stillroom.recipe.pipeline import walk
from stillroom.run.runner import At, Runner
from stillroom.steps.keep.keep import Keep
from stillroom.steps.keep.take import Take
from stillroom.steps.mix.mix import Mix


@pytest.fixture
def kitchen(tmp_path):
    return Kitchen(tmp_path / "store")


def file(path, name, *questions):
    """Write questions, each a text or a dictionary, and return the source step for them."""
    content = [q if isinstance(q, dict) else {"question": q} for q in questions]
    target = path / f"{name}.jsonl"
    target.write_text("".join(json.dumps(q) + "\n" for q in content))
    return f"source: {{file: {target}, columns: {{n: number, kind: text}}}}"


def texts(table):
    return [r["question"] for r in rows(table, "question")]


class TestMix:
    def test_order_does_not_depend_on_the_order_of_branches(self, kitchen, tmp_path):
        a, b = file(tmp_path, "a", "x?", "y?"), file(tmp_path, "b", "z?")
        one = kitchen.chain(f"- mix: {{a: [{{{a}}}], b: [{{{b}}}]}}")
        two = kitchen.chain(f"- mix: {{b: [{{{b}}}], a: [{{{a}}}]}}")
        assert texts(one) == texts(two)
        assert sorted(texts(one)) == ["x?", "y?", "z?"]

    def test_column_of_one_branch_is_null_for_the_other(self, kitchen, tmp_path):
        a, b = file(tmp_path, "a", "x?"), file(tmp_path, "b", "long one?")
        table = kitchen.chain(f"- mix: {{a: [{{{a}}}, label: length], b: [{{{b}}}]}}".replace(
            ", label: length", ", {label: length}"))  # fmt: skip
        assert {r["question"]: r["length"] for r in rows(table)} == {"x?": 2, "long one?": None}

    def test_same_source_twice_is_counted_and_kept_once(self, kitchen, tmp_path):
        a = file(tmp_path, "a", "x?", "y?")
        table = kitchen.chain(f"- mix: {{one: [{{{a}}}], two: [{{{a}}}]}}")
        assert table.height == 2
        assert kitchen.built[-1].artifact.manifest.drops == {"in_two_branches": 2}

    def branches(self, tmp_path, **sizes):
        """Write branches of so many questions; return them as in a recipe, and reversed."""
        made = [
            f"{name}: [{{{file(tmp_path, name, *(f'{name} {i}?' for i in range(n)))}}}]"
            for name, n in sizes.items()
        ]
        return ", ".join(made), ", ".join(reversed(made))

    def counts(self, table):
        return dict(Counter(text.split()[0] for text in texts(table)))

    def test_total_is_shared_equally_whatever_the_order_of_branches(self, kitchen, tmp_path):
        one, two = self.branches(tmp_path, a=50, b=60, c=70)
        table = kitchen.chain(f"- mix: {{branches: {{{one}}}, total: 20}}")
        assert self.counts(table) == {"a": 7, "b": 7, "c": 6}
        assert kitchen.built[-1].artifact.manifest.drops == {"not_drawn": 160}
        assert texts(kitchen.chain(f"- mix: {{branches: {{{two}}}, total: 20}}")) == texts(table)

    def test_larger_total_holds_the_rows_of_a_smaller(self, kitchen, tmp_path):
        one, _ = self.branches(tmp_path, a=50, b=60)
        few = set(texts(kitchen.chain(f"- mix: {{branches: {{{one}}}, total: 10}}")))
        assert few < set(texts(kitchen.chain(f"- mix: {{branches: {{{one}}}, total: 30}}")))

    def test_weights_and_caps_divide_the_total(self, kitchen, tmp_path):
        one, _ = self.branches(tmp_path, a=90, b=90, c=90)
        weights = "weights: {a: 2, b: 1, c: 1}"
        table = kitchen.chain(f"- mix: {{branches: {{{one}}}, total: 40, {weights}}}")
        assert self.counts(table) == {"a": 20, "b": 10, "c": 10}
        table = kitchen.chain(
            f"- mix: {{branches: {{{one}}}, total: 40, {weights}, caps: {{a: 4}}}}"
        )
        assert self.counts(table) == {"a": 4, "b": 18, "c": 18}
        table = kitchen.chain(f"- mix: {{branches: {{{one}}}, caps: {{a: 4, b: 100}}}}")
        assert self.counts(table) == {"a": 4, "b": 90, "c": 90}

    def test_top_runs_and_mixes_the_best_branches_only(self, kitchen, tmp_path):
        one, two = self.branches(tmp_path, a=9, b=9, c=9)
        table = kitchen.chain(f"- mix: {{branches: {{{one}}}, top: 2, total: 8}}")
        assert self.counts(table) == {"a": 4, "b": 4}
        assert not [b.path for b in kitchen.built if ".c." in b.path]
        ranked = "top: 2, rank: [c, a, b], total: 8"
        table = kitchen.chain(f"- mix: {{branches: {{{one}}}, {ranked}}}")
        assert self.counts(table) == {"c": 4, "a": 4}
        assert texts(kitchen.chain(f"- mix: {{branches: {{{two}}}, {ranked}}}")) == texts(table)

    def test_short_branch_is_refused_taken_or_repeated(self, kitchen, tmp_path):
        one, _ = self.branches(tmp_path, a=3, b=30)
        with pytest.raises(SourceError, match=r"mix: branch a has 3 rows; expected 10, its share"):
            kitchen.chain(f"- mix: {{branches: {{{one}}}, total: 20}}")
        table = kitchen.chain(f"- mix: {{branches: {{{one}}}, total: 20, short: take}}")
        assert self.counts(table) == {"a": 3, "b": 10}
        (note,) = kitchen.built[-1].artifact.manifest.notes
        assert note == "branch a has 3 rows, fewer than its share of 10; all of them stay."
        table = kitchen.chain(f"- mix: {{branches: {{{one}}}, total: 20, short: upsample}}")
        assert self.counts(table) == {"a": 10, "b": 10}
        found = rows(table, "id", "question", "copy_of")
        assert len({r["id"] for r in found}) == 20
        originals = {r["id"]: r["question"] for r in found if not r["copy_of"]}
        assert [originals[r["copy_of"]] for r in found if r["copy_of"]] == [
            r["question"] for r in found if r["copy_of"]
        ]

    def test_empty_branch_cannot_be_repeated(self, kitchen, tmp_path):
        a, b = file(tmp_path, "a", "x?"), file(tmp_path, "b", "y?")
        empty = f"a: [{{{a}}}, {{take: 0}}], b: [{{{b}}}]"
        with pytest.raises(SourceError, match="branch a has 0 rows; expected 2"):
            kitchen.chain(f"- mix: {{branches: {{{empty}}}, total: 4, short: upsample}}")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ("top: 3", "top is 3; expected 2 at most"),
            ("rank: [a, b]", "rank goes with top"),
            ("top: 1, rank: [a]", "rank names a; expected each of a, b once"),
            ("weights: {a: 1, b: 2}", "weights goes with total"),
            ("total: 4, weights: {a: 1}", "weights leaves out b"),
            ("total: 4, weights: {a: 1, b: 0}", "greater than 0"),
            ("caps: {d: 1}", "caps names d, which is no branch"),
            ("total: 4, caps: {a: 1, b: 2}", "the caps add up to 3; expected total, 4"),
            ("short: take", "short goes with total"),
        ],
    )
    def test_draw_that_cannot_be_is_refused(self, kitchen, tmp_path, fields, message):
        one, _ = self.branches(tmp_path, a=1, b=1)
        with pytest.raises(RecipeError, match=message):
            kitchen.chain(f"- mix: {{branches: {{{one}}}, {fields}}}")


def test_two_files_of_one_name_cannot_be_mixed(kitchen, tmp_path):
    for folder in ("gsm8k", "math"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text(json.dumps({"question": f"{folder}?"}))

    def branch(folder, more=""):
        return f"{folder}: [{{source: {{file: {tmp_path}/{folder}/train.jsonl}}{more}}}]"

    with pytest.raises(RecipeError, match=r"would both be called 'train'.*as: NAME"):
        kitchen.chain(f"- mix: {{{branch('gsm8k')}, {branch('math')}}}")
    inside = f"other: [{{mix: {{{branch('math')}}}}}]"
    with pytest.raises(RecipeError, match="would both be called 'train'"):
        kitchen.chain(f"- mix: {{{branch('gsm8k')}, {inside}}}")
    named = kitchen.chain(f"- mix: {{{branch('gsm8k')}, {branch('math', ', as: math')}}}")
    assert {r["source"] for r in rows(named, "source")} == {"train", "math"}
    twice = kitchen.chain(
        f"- mix: {{{branch('gsm8k')}, again: [{{source: {{file: {tmp_path}/gsm8k/train.jsonl}}}}]}}"
    )
    assert twice.height == 1


class TestUpsample:
    def test_rows_are_repeated_in_one_order_and_cut(self, kitchen, tmp_path):
        a = file(tmp_path, "a", "x?", "y?", "z?")
        found = texts(kitchen.chain(f"- {a}\n- upsample: 8"))
        assert set(found[:3]) == {"x?", "y?", "z?"}
        assert found == (found[:3] * 3)[:8]

    @pytest.mark.parametrize(
        ("step", "counts"),
        [("upsample: 8", (3, 8, {})), ("upsample: 2", (3, 2, {"not_drawn": 1}))],
    )
    def test_rows_that_went_in_are_counted_once(self, kitchen, tmp_path, step, counts):
        a = file(tmp_path, "a", "x?", "y?", "z?")
        kitchen.chain(f"- {a}\n- {step}")
        manifest = kitchen.built[-1].artifact.manifest
        assert (manifest.rows_in, manifest.rows_out, manifest.drops) == counts

    def test_copies_of_a_short_branch_did_not_go_in(self, kitchen, tmp_path):
        a, b = (file(tmp_path, name, f"{name}1?", f"{name}2?") for name in "ab")
        mix = f"- mix: {{branches: {{a: [{{{a}}}], b: [{{{b}}}]}}, total: 10, short: upsample}}"
        kitchen.chain(mix)
        manifest = kitchen.built[-1].artifact.manifest
        assert (manifest.rows_in, manifest.rows_out) == (4, 10)

    def test_copies_get_draws_of_their_own(self, kitchen, tmp_path):
        with Ledger(tmp_path / "ledger") as ledger:
            kitchen.ledger, kitchen.models = lambda: ledger, FakeModels(FakeModel())
            a = file(tmp_path, "a", "x?", "y?")
            table = kitchen.run(
                "name: t\nmodels: {teacher: {name: some/model}}\ndomains:\n  math:\n"
                f"    - {a}\n    - upsample: 5\n    - answer: {{draws: 2}}\n"
            )["math"]
            assert len({r["id"] for r in rows(table, "id")}) == 10
            assert ledger.stats().total.completions == 10

    def test_of_more_rows_n_are_drawn(self, kitchen, tmp_path):
        a = file(tmp_path, "a", *(f"{i}?" for i in range(9)))
        assert kitchen.chain(f"- {a}\n- upsample: 4").height == 4
        assert kitchen.built[-1].artifact.manifest.drops == {"not_drawn": 5}

    def test_copy_of_a_copy_names_the_first(self, kitchen, tmp_path):
        a = file(tmp_path, "a", "x?")
        table = kitchen.chain(f"- {a}\n- upsample: 2\n- {{upsample: 5, as: again}}")
        found = rows(table, "id", "copy_of")
        (original,) = {r["id"] for r in found if r["copy_of"] is None}
        assert {r["copy_of"] for r in found} == {None, original}
        assert len({r["id"] for r in found}) == 5

    def test_nothing_cannot_be_repeated(self, kitchen, tmp_path):
        a = file(tmp_path, "a", "x?")
        with pytest.raises(SourceError, match="upsample: no rows to repeat"):
            kitchen.chain(f"- {a}\n- take: 0\n- upsample: 5")
        assert kitchen.chain(f"- {a}\n- take: 0\n- upsample: 0").height == 0


class TestTake:
    def test_larger_sample_holds_the_smaller(self, kitchen, tmp_path):
        a = file(tmp_path, "a", *(f"q{i}?" for i in range(50)))
        few = set(texts(kitchen.chain(f"- {a}\n- take: 10")))
        many = set(texts(kitchen.chain(f"- {a}\n- take: 20")))
        assert len(few) == 10
        assert few < many

    def test_seed_changes_the_sample(self, kitchen, tmp_path):
        a = file(tmp_path, "a", *(f"q{i}?" for i in range(50)))
        first = texts(kitchen.chain(f"- {a}\n- take: 10"))
        other = texts(kitchen.chain(f"- {a}\n- take: {{n: 10, seed: 7}}"))
        assert first != other

    def test_too_few_rows_stay_and_are_noted(self, kitchen, tmp_path):
        a = file(tmp_path, "a", "x?", "y?")
        assert kitchen.chain(f"- {a}\n- take: 1,000".replace("1,000", "1000")).height == 2
        assert kitchen.built[-1].artifact.manifest.notes == [
            "take wanted 1,000 rows, but only 2 were there; all of them stay."
        ]

    def test_per_column(self, kitchen, tmp_path):
        content = [{"question": f"{k}{i}?", "kind": k} for k in "ab" for i in range(5)]
        a = file(tmp_path, "a", *content)
        table = kitchen.chain(f"- {a}\n- take: {{n: 2, per: kind}}")
        assert sorted(r["kind"] for r in rows(table)) == ["a", "a", "b", "b"]

    def groups(self, tmp_path):
        """Write 60 rows of kind a, 30 of b and 10 of c, with n from 0 to 99."""
        kinds = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
        return file(
            tmp_path,
            "a",
            *({"question": f"{k}{i}?", "n": i, "kind": k} for i, k in enumerate(kinds)),
        )

    def kinds(self, table):
        return dict(sorted(Counter(r["kind"] for r in rows(table, "kind")).items()))

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ("n: 60, across: kind", {"a": 25, "b": 25, "c": 10}),
            ("n: 50, across: kind, shares: proportional", {"a": 30, "b": 15, "c": 5}),
            ("n: 40, across: kind, shares: {a: 1, b: 3}", {"a": 10, "b": 30}),
            ("n: 10%, per: kind", {"a": 6, "b": 3, "c": 1}),
            ("n: 1%, per: kind", {"a": 1, "b": 1, "c": 1}),
            ("n: 100%", {"a": 60, "b": 30, "c": 10}),
        ],
    )
    def test_rows_are_divided_as_asked(self, kitchen, tmp_path, fields, expected):
        table = kitchen.chain(f"- {self.groups(tmp_path)}\n- take: {{{fields}}}")
        assert self.kinds(table) == expected

    def test_division_that_finds_too_few_rows_is_noted(self, kitchen, tmp_path):
        step = "take: {n: 80, across: kind, shares: {a: 1, d: 1}}"
        assert self.kinds(kitchen.chain(f"- {self.groups(tmp_path)}\n- {step}")) == {"a": 60}
        assert kitchen.built[-1].artifact.manifest.notes == [
            "take found no rows with kind d; the others gave more.",
            "take wanted 80 rows, but only 60 were there; all of them stay.",
        ]

    def test_bare_percent_is_a_part_of_the_rows(self, kitchen, tmp_path):
        assert kitchen.chain(f"- {self.groups(tmp_path)}\n- take: 12.5%").height == 13

    def test_weight_draws_heavy_rows_more_often_and_zero_last(self, kitchen, tmp_path):
        source = self.groups(tmp_path)
        drawn = Counter()
        for seed in range(30):
            step = f"take: {{n: 10, weight: n, seed: {seed}}}"
            drawn.update(r["n"] for r in rows(kitchen.chain(f"- {source}\n- {step}"), "n"))
        assert sum(n for n in drawn.elements()) / drawn.total() > 58
        assert len(drawn) > 60
        assert 0 not in drawn
        last = kitchen.chain(f"- {source}\n- take: {{n: 99, weight: n}}")
        assert 0 not in {r["n"] for r in rows(last, "n")}

    def test_rank_halves_the_chance_with_every_place(self, kitchen, tmp_path):
        source = self.groups(tmp_path)
        firsts = Counter()
        for seed in range(120):
            step = f"take: {{n: 1, rank: n, seed: {seed}}}"
            firsts.update(r["n"] for r in rows(kitchen.chain(f"- {source}\n- {step}"), "n"))
        assert 40 <= firsts[99] <= 80
        assert 15 <= firsts[98] <= 45
        assert sum(firsts[n] for n in range(90)) == 0
        flat = kitchen.chain(f"- {source}\n- take: {{n: 30, rank: n, half: 1000}}")
        assert min(r["n"] for r in rows(flat, "n")) < 30

    def test_unknown_weight_is_a_reason_of_its_own(self, kitchen, tmp_path):
        questions = [{"question": f"{n}?", "n": n} for n in (None, -1, 2, 3)]
        kitchen.chain(f"- {file(tmp_path, 'a', *questions)}\n- take: {{n: 1, weight: n}}")
        assert kitchen.built[-1].artifact.manifest.drops == {
            "n unknown": 1, "n below 0": 1, "not_drawn": 1,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ("n: 5, per: kind, across: kind", "per and across given"),
            ("n: 5%, across: kind", "n is 5% beside across"),
            ("n: 5, weight: n, rank: n", "weight and rank given"),
            ("n: 5, shares: equal", "shares goes with across"),
            ("n: 5, half: 2", "half goes with rank"),
            ("n: 5, weight: kind", "'kind', which is String"),
            ("n: 101%", "101%"),
            ("n: 5, across: kind, shares: {a: 0}", "all shares are 0"),
        ],
    )
    def test_draw_that_cannot_be_is_refused(self, kitchen, tmp_path, fields, message):
        with pytest.raises(RecipeError, match=message):
            kitchen.chain(f"- {self.groups(tmp_path)}\n- take: {{{fields}}}")

    def test_fields_that_are_not_used_do_not_change_the_key(self):
        assert Take(n=2).identity() == {"n": 2, "seed": 42, "per": None}
        assert Take(n=2, rank="x").identity() == {
            "n": 2, "seed": 42, "per": None, "rank": "x", "half": 1.0, "ties": "drawn apart",
        }  # fmt: skip
        assert Mix(branches={"a": ()}).identity() == {"seed": 42}
        assert Mix(branches={"a": (), "b": ()}, top=1).identity() == {"seed": 42}

    def test_keep_takes_a_part_of_each_kind(self, kitchen, tmp_path):
        source = self.groups(tmp_path)
        table = kitchen.chain(f"- {source}\n- keep: {{top: 25%, by: n, per: kind}}")
        assert self.kinds(table) == {"a": 15, "b": 8, "c": 3}
        assert {r["n"] for r in rows(table, "n", "kind") if r["kind"] == "c"} == {97, 98, 99}


class TestKeep:
    ROWS = (
        {"question": "a?", "n": 1.0, "kind": "x"},
        {"question": "b?", "n": 2.0, "kind": "y"},
        {"question": "c?", "n": None, "kind": "x"},
        {"question": "d?", "n": 3.0, "kind": "z"},
    )

    @pytest.mark.parametrize(
        ("rule", "kept", "reasons"),
        [
            ("where: {n: {min: 2}}", "bd", {"n below 2": 1, "n unknown": 1}),
            ("where: {n: {min: 1, max: 2}}", "ab", {"n above 2": 1, "n unknown": 1}),
            ("where: {}", "abcd", {}),
            ("where: {n: 3}", "d", {"n is 1.0": 1, "n is 2.0": 1, "n unknown": 1}),
            ("where: {n: [1, 2.0]}", "ab", {"n is 3.0": 1, "n unknown": 1}),
            ("where: {kind: x}", "ac", {"kind is y": 1, "kind is z": 1}),
            ("where: {kind: [x, y], n: {max: 9}}", "ab", {"kind is z": 1, "n unknown": 1}),
            ("top: 2, by: n", "bd", {"not in the top 2": 1, "n unknown": 1}),
            ("lowest: 1, by: n", "a", {"not in the lowest 1": 2, "n unknown": 1}),
            ("top: 1, by: n, per: kind", "abd", {"n unknown": 1}),
        ],
    )
    def test_rule_keeps_and_says_why_others_left(self, kitchen, tmp_path, rule, kept, reasons):
        a = file(tmp_path, "a", *self.ROWS)
        assert "".join(t[0] for t in texts(kitchen.chain(f"- {a}\n- keep: {{{rule}}}"))) == kept
        assert kitchen.built[-1].artifact.manifest.drops == reasons

    @pytest.mark.parametrize(
        "rule", [{"where": {"n": {"min": 2}}}, {"where": {"n": {"max": 2}}}, {"where": {"n": 1}},
                 {"top": 3, "by": "n"}, {"lowest": "50%", "by": "n"}],
    )  # fmt: skip
    def test_what_is_not_a_number_is_unknown(self, kitchen, rule):
        table = question_table(kitchen.store, 4, extra={"n": (pl.Float64(), float("nan"))})
        runner = Runner(kitchen.store, kitchen.runtime)
        left = runner("math.keep", Keep.model_validate(rule), [At("math.a", table)]).table
        assert left.height == 0
        assert runner.built[-1].artifact.manifest.drops == {"n unknown": 4}

    @pytest.mark.parametrize(
        ("column", "value", "expected"),
        [
            ("n", "high", "'n', which is Float64, with 'high'; expected a number"),
            ("row", 1.5, "'row', which is Int64, with 1.5; expected a whole number"),
            ("row", True, "'row', which is Int64, with True; expected a whole number"),
            ("kind", 3, "'kind', which is String, with 3; expected a text, in quotes"),
        ],
    )
    def test_value_that_no_row_can_have_is_refused(
        self, kitchen, tmp_path, column, value, expected
    ):
        a = file(tmp_path, "a", *self.ROWS)
        with pytest.raises(RecipeError, match=re.escape(expected)):
            kitchen.chain(f"- {a}\n- keep: {{where: {{{column}: {json.dumps(value)}}}}}")
        assert not kitchen.built

    def test_whole_number_may_be_written_with_a_point(self, kitchen, tmp_path):
        a = file(tmp_path, "a", *self.ROWS)
        assert texts(kitchen.chain(f"- {a}\n- keep: {{where: {{row: [1.0, 3]}}}}")) == ["b?", "d?"]

    def test_score_of_a_drop_is_the_value_that_failed(self, kitchen, tmp_path):
        a = file(tmp_path, "a", *self.ROWS)
        kitchen.chain(f"- {a}\n- keep: {{where: {{n: {{max: 2}}}}}}")
        found = drops(kitchen.built[-1]).select("reason", "score").sort("reason").rows()
        assert found == [("n above 2", 3.0), ("n unknown", None)]


class TestLabel:
    def test_lengths(self, kitchen, tmp_path):
        a = file(tmp_path, "a", "Wie groß\nist es?")
        for unit, value in (("characters", 16), ("words", 4), ("lines", 2)):
            table = kitchen.chain(f"- {a}\n- label: {{length: {{unit: {unit}}}}}")
            assert rows(table)[0]["length"] == value

    @pytest.mark.parametrize(
        ("text", "flag"),
        [
            ("See https://example.org for data.", "has_url"),
            ("In the figure below, find x.", "has_figure"),
            ("[asy] draw((0,0)); [/asy]", "has_figure"),
            ("Pick: (A) 1 (B) 2 (C) 3", "multiple_choice"),
            ("Pick:\nA. 1\nB. 2\nC. 3", "multiple_choice"),
            ("(a) Find x. (b) Find y.", "multi_part"),
            ("Prove that 2 is even.", "wants_proof"),
            ("How many proofreaders configure a website?", None),
        ],
    )
    def test_rules(self, kitchen, tmp_path, text, flag):
        table = kitchen.chain(f"- {file(tmp_path, 'a', text)}\n- label: rules")
        (row,) = rows(
            table, "has_url", "has_figure", "multiple_choice", "multi_part", "wants_proof"
        )
        assert [name for name, value in row.items() if value] == ([flag] if flag else [])


class TestDedup:
    def test_row_with_a_reference_survives(self, kitchen, tmp_path):
        a = file(tmp_path, "a", "Is it so?", {"question": "is it  SO?", "reference": "yes"})
        assert texts(kitchen.chain(f"- {a}\n- dedup: exact")) == ["is it  SO?"]

    def test_survivor_of_exact_copies_is_verified_then_referenced_then_first(
        self, kitchen, tmp_path
    ):
        rows_ = [
            {"question": "A?", "reference": "1"},
            {"question": "a?", "verified": True},
            {"question": "B?"},
            {"question": "b?", "reference": "1", "verified": False},
            {"question": "C?"},
            {"question": "c?"},
        ]
        target = tmp_path / "a.jsonl"
        target.write_text("".join(json.dumps(r) + "\n" for r in rows_))
        source = f"source: {{file: {target}, columns: {{verified: boolean}}}}"
        assert texts(kitchen.chain(f"- {source}\n- dedup: exact")) == ["a?", "b?", "C?"]
        plain = "dedup: {exact: , prefer: [first]}"
        assert texts(kitchen.chain(f"- {source}\n- {plain}")) == ["A?", "B?", "C?"]

    def test_indel_keeps_the_longer_and_names_witness_and_score(self, kitchen, tmp_path):
        a = file(tmp_path, "a", "How many hens has Ann?", "Two?", "How many hens has Anna?")
        table = kitchen.chain(f"- {a}\n- dedup: {{indel: 90}}")
        assert texts(table) == ["Two?", "How many hens has Anna?"]
        (drop,) = drops(kitchen.built[-1]).to_dicts()
        assert drop["reason"] == "near_duplicate"
        assert drop["score"] == pytest.approx(100 * 44 / 45)
        assert drop["witness"] == rows(table, "id", "question")[1]["id"]

    def test_rules_of_indel_differ_on_chains(self, kitchen, tmp_path):
        chain = ("abcdefghij", "abcdefghiX", "abcdefghYX")
        a = file(tmp_path, "a", *chain)
        for rule, kept in (("greedy", [chain[0], chain[2]]), ("pairwise", [chain[0]])):
            step = f"dedup: {{indel: {{threshold: 90, rule: {rule}}}}}"
            assert texts(kitchen.chain(f"- {a}\n- {step}")) == kept

    LONG = "A farmer has {} red hens and buys {} more of them on the market of the old town."

    def test_minhash_finds_a_long_near_copy_and_not_a_short_one(self, kitchen, tmp_path):
        long = " ".join(self.LONG.format(i, i + 1) for i in range(9))
        a = file(
            tmp_path, "a", long, long.upper() + " Why?", "Two hens?", "Two hens, no?", "!", "?"
        )
        table = kitchen.chain(f"- {a}\n- dedup: minhash")
        assert texts(table) == [long.upper() + " Why?", "Two hens?", "Two hens, no?", "!", "?"]
        (drop,) = drops(kitchen.built[-1]).to_dicts()
        assert drop["reason"] == "near_duplicate"
        assert 98 < drop["score"] < 100
        assert drop["witness"] == rows(table, "id")[0]["id"]

    def test_minhash_by_chains_keeps_one_of_what_is_linked(self, kitchen, tmp_path):
        """With one word a shingle and one row a band, texts that share a word are linked."""
        a = file(tmp_path, "a", "ape bee", "bee cat", "cat dog")
        for rule, kept in (("greedy", ["ape bee", "cat dog"]), ("chains", ["ape bee"])):
            method = f"{{ngram: 1, bands: 64, rows: 1, rule: {rule}}}"
            step = f"dedup: {{minhash: {method}, prefer: [first]}}"
            assert texts(kitchen.chain(f"- {a}\n- {step}")) == kept

    def test_minhash_verified_drops_only_what_reaches_the_similarity(self, kitchen, tmp_path):
        copies = [self.LONG.format(n, 7) for n in ("two", "Two", "ten")]
        a = file(tmp_path, "a", *copies, "Of the old town a farmer buys 7 red hens more.")
        step = "dedup: {minhash: {ngram: 2, bands: 64, rows: 1, verify: %s}, prefer: [first]}"
        assert len(texts(kitchen.chain(f"- {a}\n- {step % 99}"))) == 3
        assert len(texts(kitchen.chain(f"- {a}\n- {step % 95}"))) == 2
        assert {d["reason"] for d in drops(kitchen.built[-1]).to_dicts()} == {"near_duplicate"}
        assert min(drops(kitchen.built[-1])["score"]) >= 95

    @pytest.mark.parametrize(
        ("method", "message"),
        [
            ("{bands: 100, rows: 100}", "bands times rows is 10000; expected 4,096 at most"),
            ("{rule: chains, verify: 90}", "rule is chains beside verify"),
            ("{verify: 40}", "40"),
            ("{unit: letters}", "letters"),
        ],
    )
    def test_minhash_that_cannot_be_is_refused(self, kitchen, tmp_path, method, message):
        a = file(tmp_path, "a", "x?")
        with pytest.raises(RecipeError, match=message):
            kitchen.chain(f"- {a}\n- dedup: {{minhash: {method}}}")

    def test_verified_that_is_no_boolean_is_refused(self, kitchen, tmp_path):
        target = tmp_path / "a.jsonl"
        target.write_text(json.dumps({"question": "A?", "verified": "yes"}) + "\n")
        source = f"source: {{file: {target}, columns: {{verified: text}}}}"
        with pytest.raises(RecipeError, match="'verified' is String; expected booleans"):
            kitchen.chain(f"- {source}\n- dedup: exact")


class TestResponseLength:
    RECIPE = """\
name: test
models: {{prober: {{name: some/model}}}}
domains:
  math:
    - {source}
    - label: response_length
"""

    @pytest.fixture
    def measured(self, kitchen, tmp_path):
        """Run the recipe on a fake model, as it stands or asking again for what failed."""
        ledger = Ledger(tmp_path / "ledger")
        kitchen.ledger = lambda: ledger

        def run(reply, **options):
            kitchen.models = FakeModels(FakeModel(reply))
            text = self.RECIPE.format(source=file(tmp_path, "a", "x?", "yy?"))
            runner = Runner(kitchen.store, replace(kitchen.runtime, **options))
            table = walk(read_recipe(text).bound(), runner)["math"].table
            notes = runner.built[-1].artifact.manifest.notes
            return [r["response_length"] for r in rows(table, "response_length")], notes

        yield run
        ledger.close()

    def test_reply_that_was_cut_off_in_its_thinking_is_not_the_shortest(self, measured):
        def reply(request):
            if request.messages[-1].content == "x?":
                return Completion("A hard one. " * 99, "", "length", 1, 300)
            return Completion("hm", "four", "stop", 1, 3)

        assert measured(reply) == (
            [None, 4],
            ["1 of 2 rows have no value in response_length: "
             "the reply was cut off before its visible answer began."],
        )  # fmt: skip

    @pytest.mark.parametrize("reason", ["timeout", "refused"])
    def test_requests_that_failed_are_asked_again_when_told(self, measured, reason):
        def fails(request):
            return Failure(reason, "no") if request.messages[-1].content == "x?" else echo(request)

        assert measured(fails)[0][0] is None
        assert measured(echo)[0][0] is None
        assert None not in measured(echo, retry_failed=True)[0]


class TestAnswer:
    RECIPE = """\
name: test
models: {{teacher: {{name: some/model, temperature: 0.9}}}}
domains:
  math:
    - {source}
    - answer: {{draws: {draws}}}
"""

    @pytest.fixture
    def asked(self, kitchen, tmp_path):
        """Run the recipe on a fake model, and tell how many calls it took."""
        ledger = Ledger(tmp_path / "ledger")
        kitchen.ledger = lambda: ledger

        def run(*questions, draws=2, reply=echo):
            model = FakeModel(reply)
            kitchen.models = FakeModels(model)
            source = file(tmp_path, "a", *questions)
            table = kitchen.run(self.RECIPE.format(source=source, draws=draws))["math"]
            return table, sum(model.asked.values())

        yield run
        ledger.close()

    def test_each_question_gets_k_draws(self, asked):
        table, calls = asked("x?", "yy?")
        assert calls == 4
        assert [(r["question"], r["draw"]) for r in rows(table)] == [
            ("x?", 0), ("x?", 1), ("yy?", 0), ("yy?", 1)
        ]  # fmt: skip
        first = rows(table)[0]
        assert first["reasoning"] == "draw 0: count"
        assert first["teacher"] == "some/model"

    def test_sixteen_draws_after_four_buy_twelve_and_keep_the_four(self, asked):
        four, _ = asked("x?", draws=4)
        sixteen, calls = asked("x?", draws=16)
        assert calls == 12
        assert rows(sixteen)[:4] == rows(four)

    def test_new_question_buys_only_its_own(self, asked):
        asked("x?", "y?")
        _, calls = asked("x?", "y?", "z?")
        assert calls == 2

    def test_repeated_question_gets_draws_of_its_own(self, asked):
        table, calls = asked("x?", "x?", draws=2)
        assert calls == 4
        assert [r["reasoning"] for r in rows(table)] == [f"draw {i}: count" for i in range(4)]
        assert [r["draw"] for r in rows(table)] == [0, 1, 0, 1]

    def test_failed_draw_is_a_drop_with_the_servers_words(self, asked, kitchen):
        def reply(request):
            return Failure("refused", "no") if request.draw else echo(request)

        table, _ = asked("x?", draws=2, reply=reply)
        assert table.height == 1
        manifest = kitchen.built[-1].artifact.manifest
        assert manifest.drops == {"refused": 1}
        assert manifest.rows_in == 2

    def test_cut_answer_stays_with_its_finish_reason(self, asked):
        def reply(request):
            return Completion("so far", "", "length", 3, 300)

        table, _ = asked("x?", draws=1, reply=reply)
        assert rows(table, "answer", "finish_reason") == [{"answer": "", "finish_reason": "length"}]

    def test_half_a_surrogate_pair_is_shown_as_a_question_mark(self, asked):
        def reply(request):
            return Completion("hm \ud83d", "4 \ud83d", "stop", 3, 4)

        table, _ = asked("x?", draws=1, reply=reply)
        assert rows(table, "reasoning", "answer") == [{"reasoning": "hm ?", "answer": "4 ?"}]

    def test_model_is_not_opened_when_the_ledger_has_everything(self, asked, kitchen, tmp_path):
        asked("x?", draws=2)
        (artifact,) = (kitchen.root / "artifacts" / "answer").iterdir()
        import shutil

        shutil.rmtree(artifact)
        _, calls = asked("x?", draws=2)
        assert calls == 0
        assert kitchen.models.opened == 0

    def test_plan_counts_what_the_ledger_lacks(self, asked, kitchen, tmp_path):
        asked("x?", "y?", draws=4)
        source = file(tmp_path, "a", "x?", "y?")
        (_, planned) = kitchen.plan(self.RECIPE.format(source=source, draws=16))
        assert (planned.calls.wanted, planned.calls.missing) == (32, 24)
        # The fake model wrote 10, 11, 12 and 13 tokens for the four draws of a question.
        assert (planned.calls.tokens, planned.calls.bound) == (round(11.5 * 24), False)
        assert planned.why == ("draws 4 → 16",)

    def test_plan_bounds_what_a_waiting_step_would_buy(self, asked, kitchen):
        kitchen.models = FakeModels(FakeModel())
        text = self.RECIPE.format(source="source: {procedural: {n: 500}}", draws=4)
        text = text.replace("    - answer", "    - take: 30\n    - answer")
        (*_, taken, planned) = kitchen.plan(text)
        assert (taken.state, taken.at_most) == ("waiting", 30)
        assert (planned.state, planned.at_most, planned.calls.wanted) == ("waiting", 120, 120)
        assert planned.calls.bound

    def test_answers_keep_their_questions_columns(self, asked):
        table, _ = asked({"question": "x?", "reference": "2", "n": 5})
        assert rows(table, "draw", "reference", "n") == [
            {"draw": 0, "reference": "2", "n": 5.0},
            {"draw": 1, "reference": "2", "n": 5.0},
        ]

    def test_answers_are_sharded_by_size(self, asked, monkeypatch):
        monkeypatch.setattr("stillroom.steps.answer.answer.SHARD", 4)
        table, _ = asked(*(f"{'x' * i}?" for i in range(5)), draws=2)
        assert [s.data.rows for s in table.shards] == [4, 4, 2]
        assert [r["draw"] for r in rows(table)] == [0, 1] * 5
        assert table.scan("question", "answer").collect().height == 10


def test_scan_of_an_empty_table_has_its_columns(kitchen, tmp_path):
    a = file(tmp_path, "a", "x?")
    table = kitchen.chain(f"- {a}\n- keep: {{where: {{kind: nothing}}}}\n- label: length")
    assert table.height == 0
    assert table.scan("id", "length").collect().schema == {"id": pl.String, "length": pl.Int64}
