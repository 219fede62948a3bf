"""The dataset card: what it says, and that data in it is never markup."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest
import yaml
from huggingface_hub import DatasetCard, DatasetCardData
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tests.tables import TEACHER, answer_table, keep, question_table, store_in, story_of, verify

from stillroom.steps.base import ModelSpec
from stillroom.steps.export.card import code, prose, wilson
from stillroom.steps.export.export import Export, write_dataset
from stillroom.steps.export.facts import Lengths
from stillroom.steps.export.plot import lengths_svg

NASTY = [
    "a|b", "`", "``` \n# heading", "<script>alert(1)</script>", "<!-- x", "![x](http://e.vil/i.png)",
    "[x](javascript:alert(1))", "*bold* _it_ ~~s~~", "http://e.vil", "www.e.vil", "me@e.vil",
    "\\|", "\\", "&lt;b&gt;", "\u202egnp.exe", "\x00\x1b[31m", "- item", "1. item", "| --- |",
    "---", "$x$", "</details>", "\r\n\r\n> quote", "<b>|`|</b>", "# h", "    code", "=", "+ x",
]  # fmt: skip

markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def tokens(text):
    """List the kinds of tokens in a text, those inside lines included."""
    kinds = []
    for token in markdown.parse(text):
        kinds.append(token.type)
        kinds += [child.type for child in token.children or []]
    return kinds


def make_card(tmp_path, tables, *, name="sums", recipe="name: sums\n", story=None, **options):
    export = Export(**options.pop("export", {}))
    write_dataset(
        tmp_path / "out",
        name=name,
        recipe_text=recipe,
        tables=tables,
        story=story_of(tables) if story is None else story,
        export=export,
        **options,
    )
    return (tmp_path / "out" / "README.md").read_text()


def front(card):
    return yaml.safe_load(card.split("---\n")[1])


@pytest.fixture
def store(tmp_path):
    return store_in(tmp_path)


@pytest.fixture
def tables(store):
    math = verify(store, answer_table(store, question_table(store, 8)))
    science = question_table(store, 4, domain="science", source="camels", licence="cc-by-nc-4.0")
    return {
        "math": keep(store, math, "verdict", "correct", notes=["only 8 <of> 10 | were there"]),
        "science": verify(store, answer_table(store, science)),
    }


def test_card_front_matter_is_what_the_hub_knows(tmp_path, tables):
    card = make_card(tmp_path, tables, export={"title": "Sums: *all*", "language": ("en",)})
    loaded = DatasetCard(card)
    data = front(card)
    assert data["license"] == "other"
    assert data["license_name"] == "mixed"
    assert data["size_categories"] == ["n<1K"]
    assert data["task_categories"] == ["text-generation"]
    assert "reasoning" in data["tags"]
    assert data["language"] == ["en"]
    assert data["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert data["pretty_name"] == "Sums: *all*"
    again = DatasetCardData(**{k: v for k, v in data.items() if k != "ignore_metadata_errors"})
    assert again.to_dict() == loaded.data.to_dict()


@pytest.mark.parametrize(
    ("licence", "given", "expected"),
    [("MIT", None, "mit"), (None, None, "unknown"), ("mit", "cc-by-4.0", "cc-by-4.0")],
)
def test_card_licence_follows_the_rows_unless_stated(tmp_path, store, licence, given, expected):
    tables = {"math": answer_table(store, question_table(store, licence=licence))}
    assert front(make_card(tmp_path, tables, export={"licence": given}))["license"] == expected


def test_card_tells_steps_verdicts_lengths_and_licences(tmp_path, tables):
    card = make_card(tmp_path, tables, description="Small *sums*.")
    assert "# sums\n\nSmall *sums*.\n\n17 answers to 10 questions" in card
    assert "| `math.keep` | 16 | 9 | 4 `verdict is incorrect`, 3 `verdict is unparsed` |" in card
    # 9 + 4 of 13 + 7 decided, counted before `keep`; of these rows only the kept are here.
    assert "| `math` | 16 | 9 | 4 | 3 | 0 | 0 | 56.2% | 69.2% (42.4 to 87.3%) | 9 |" in card
    assert re.search(r"\| \*\*all\*\* \| 24 \| .* \| 17 \|", card)
    assert "| `camels` | `cc-by-nc-4.0` | 8 | forbids commercial use |" in card
    assert "`teacher-1b`: temperature 0.7, max_tokens 4,096; 2 draws per question" in card
    assert "- `math.keep`: only 8 &lt;of&gt; 10 \\| were there" in card
    assert "![Histogram of the tokens of each answer](lengths.svg)" in card
    assert "stillroom run recipe.yaml" in card


def test_card_says_that_draws_ended_with_the_first_correct_one(tmp_path, store):
    def answered(name, draws):
        table = answer_table(store_in(tmp_path / name), question_table(store_in(tmp_path / name)))
        table.rows.manifest.fields["draws"] = draws
        made = {"math": verify(store_in(tmp_path / name), table)}
        return "ended with the first correct one" in make_card(tmp_path / name, made)

    rule = {"by": "math", "at_most": 4, "round": 1}
    assert answered("a", {"until": "correct", **rule})
    assert not answered("b", {"until": {"within": 0.1}, **rule})
    assert not answered("c", {"column": "n"})
    assert not answered("d", 2)


def test_card_names_other_models_and_their_roles(tmp_path, tables):
    models = {"teacher": ModelSpec(name="teacher-1b"), "grader": ModelSpec(name="judge-8b")}
    card = make_card(tmp_path, tables, models=models)
    assert "| `grader` | `judge-8b` |" in card
    assert "| `teacher` | `teacher-1b` |" not in card


def test_card_tells_teachers_apart(tmp_path, store, tables):
    other = TEACHER | {"name": "big", "temperature": None, "max_tokens": None, "system": "Hi."}
    tables["code"] = answer_table(store, question_table(store, 3, domain="code"), model=other)
    card = make_card(tmp_path, tables)
    assert "| teacher of `math` and `science` | `teacher-1b`: temperature 0.7" in card
    assert (
        "| teacher of `code` | `big`: sampling left to the server; 2 draws per question; "
        "with a system prompt |"
    ) in card


def test_card_of_questions_says_nothing_of_answers(tmp_path, store):
    card = make_card(tmp_path, {"math": question_table(store)})
    assert "6 questions in `math`." in card
    assert "answers" not in card.split("---\n")[2]
    assert "lengths.svg" not in card


def test_card_without_verdicts_has_no_section_on_them(tmp_path, store):
    card = make_card(tmp_path, {"math": answer_table(store, question_table(store))})
    assert "## Verdicts" not in card
    assert 'row["verdict"]' not in card


def test_card_sums_up_many_reasons(tmp_path, store):
    texts = [f"q{i}" for i in range(20)]
    questions = keep(store, question_table(store, texts=texts, shard=20), "row", 3)
    card = make_card(tmp_path, {"math": answer_table(store, questions)})
    assert "14 for 14 other reasons |" in card


def test_card_recipe_cannot_leave_its_fence(tmp_path, tables):
    recipe = "name: sums\n# ````\n# </details>\n~~~\n```\n<script>\n"
    card = make_card(tmp_path, tables, recipe=recipe)
    fences = [t for t in markdown.parse(card.split("---\n", 2)[2]) if t.type == "fence"]
    assert fences[-1].content == recipe
    assert (tmp_path / "out" / "recipe.yaml").read_text() == recipe


def test_card_shows_data_and_never_obeys_it(tmp_path, store):
    def card_with(folder, words):
        tables = {
            word: answer_table(
                store,
                question_table(store, 4, source=word, domain=word, licence=word),
                model=TEACHER | {"name": word},
            )
            for word in words
        }
        return make_card(folder, tables, name="".join(words)).split("---\n", 2)[2]

    expected = Counter(tokens(card_with(tmp_path / "a", [f"plain{i}" for i in range(len(NASTY))])))
    card = card_with(tmp_path / "b", NASTY)
    found = Counter(tokens(card))
    # Plain text may come in several pieces, and names may be empty once cleaned: *empty*.
    # What data must not change is everything else.
    drift = (found - expected) + (expected - found)
    assert not set(drift) - {"text", "text_special", "code_inline", "em_open", "em_close"}
    assert "\u202e" not in card
    assert "\x1b" not in card
    ElementTree.parse(tmp_path / "b" / "out" / "lengths.svg")


@given(st.text() | st.sampled_from(NASTY))
def test_code_is_one_cell_of_one_code_span(text):
    table = f"| {code(text)} | end |\n| --- | --- |\n| {code(text)} | end |\n"
    kinds = Counter(tokens(table))
    assert kinds["td_open"] == kinds["th_open"] == 2
    assert set(kinds) <= {
        "table_open", "thead_open", "tr_open", "th_open", "inline", "code_inline", "th_close",
        "tr_close", "thead_close", "tbody_open", "td_open", "td_close", "tbody_close",
        "table_close", "text", "em_open", "em_close",
    }  # fmt: skip
    assert kinds["code_inline"] == 2 or code(text) in ("*empty*", "*none*")


@given(st.text(max_size=30) | st.sampled_from(NASTY), st.sampled_from(["# {}", "- {}", "{}"]))
def test_prose_is_nothing_but_text(text, line):
    plain = set(tokens(line.format("word")))
    kinds = set(tokens(line.format(prose(text))))
    assert kinds <= plain | {"text_special"} or not prose(text)


@given(st.lists(st.sampled_from(NASTY), max_size=6).map("".join))
def test_prose_of_nasty_pieces_is_nothing_but_text(text):
    assert set(tokens("- x " + prose(text))) <= set(tokens("- x")) | {"text_special"}


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_intervals(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(
    st.dictionaries(
        st.text(max_size=12),
        st.dictionaries(st.integers(1, 200_000), st.integers(1, 1000), min_size=1, max_size=30),
        min_size=1,
        max_size=10,
    )
)
def test_plot_of_any_lengths_is_well_formed_and_inside_its_frame(lengths):
    counts = {d: Lengths(dict(sorted(values.items()))) for d, values in lengths.items()}
    root = ElementTree.fromstring(lengths_svg(counts))
    width, height = float(root.get("width")), float(root.get("height"))
    bars = [e for e in root if e.tag.endswith("rect")]
    assert bars
    for bar in bars:
        x, y, w, h = (float(bar.get(k)) for k in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


def test_lengths_quantiles_are_values_that_occur():
    lengths = Lengths({1: 5, 10: 4, 100: 1})
    assert [lengths.quantile(q) for q in (0.5, 0.51, 0.9, 0.95)] == [1, 10, 10, 100]
