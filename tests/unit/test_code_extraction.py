"""The program of an answer: which block counts."""

import pytest

from stillroom.text.code import closed_blocks, extract_code


@pytest.mark.parametrize(
    ("answer", "language", "expected"),
    [
        ("```python\na\n```\n```python\nb\n```", "python", ("b\n", "fenced")),
        ("```python\na\n```\n```bash\npip\n```", "python", ("a\n", "fenced")),
        ("```\na\n```", "python", ("a\n", "unnamed")),
        ("```py\na\n```\n```\n1 2\n```", "python", ("a\n", "fenced")),
        ("```c++\na\n```", "cpp", ("a\n", "fenced")),
        ("```{.python}\na\n```", "python", ("a\n", "fenced")),
        ("~~~python\na\n~~~", "python", ("a\n", "fenced")),
        ("````python\ns = '''\n```\n'''\n````", "python", ("s = '''\n```\n'''\n", "fenced")),
        ("1. so:\n   ```python\n   a\n   ```", "python", ("   a\n", "fenced")),
        ("text\n```python\nx = 1\n", "python", ("x = 1\n", "unclosed")),
        ("```bash\nls\n```", "python", None),
        ("```python\n\n```", "python", None),
        ("print(1)", "python", None),
        ("", "python", None),
    ],
)
def test_extract_code_takes_the_last_block_of_the_language(answer, language, expected):
    assert extract_code(answer, language) == expected


def test_extract_code_prefers_a_definition_to_an_example_of_its_use():
    answer = "```python\ndef f(): ...\n```\nUse:\n```python\nprint(f())\n```"
    assert extract_code(answer, "python", defining=True) == ("def f(): ...\n", "defining")
    assert extract_code(answer, "python") == ("print(f())\n", "fenced")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("a\n```python\n1\n```\nb\n```python\n2", "a\n```python\n1\n```"),
        ("````\n```\n1\n```\n````\nb", "````\n```\n1\n```\n````"),
        ("````\n```\n1\n```\n", ""),
        ("```python\n1", ""),
        ("no block", ""),
    ],
)
def test_closed_blocks_end_where_the_last_one_does(answer, expected):
    assert closed_blocks(answer) == expected


def test_extract_code_takes_linear_time():
    assert extract_code("```" * 200_000, "python") is None
    assert extract_code("```\n" * 200_000, "python") is None
