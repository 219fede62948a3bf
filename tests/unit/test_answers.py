import time

import pytest

from stillroom.text.answers import Extracted, choice_letter, extract_answer, extract_choice

ANSWERS = [
    # boxed
    (r"So \boxed{42}.", "42", "boxed"),
    (r"\boxed{1} then \boxed{2}", "2", "boxed"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "boxed"),
    (r"\fbox{7}", "7", "boxed"),
    (r"\boxed {7}", "7", "boxed"),
    (r"$$\boxed{\left\{ 1, 2 \right\}}$$", r"\left\{ 1, 2 \right\}", "boxed"),
    (r"\boxed{a \boxed{b}}", r"a \boxed{b}", "boxed"),
    (r"Put it in \boxed{}: \boxed{3} \boxed{ }", "3", "boxed"),
    (r"\boxed{1} and then \boxed{\frac{2}{3}", "1", "boxed"),
    (r"{ unbalanced \boxed{5}", "5", "boxed"),
    (r"} unbalanced \boxed{5}", "5", "boxed"),
    (r"\\boxed{5}", "5", "boxed"),
    (r"x \\{\boxed{6}}", "6", "boxed"),
    ("\\boxed{\n  8\n}", "8", "boxed"),
    (r"\boxed{9}. The answer is 10.", "9", "boxed"),
    # tagged
    ("<answer>1</answer> or rather <answer> 2 </answer>", "2", "tagged"),
    ("<answer>The answer is 3</answer>", "The answer is 3", "tagged"),
    (r"<answer>\boxed{4}</answer>", "4", "boxed"),
    ("<answer></answer>\nAnswer: 5", "5", "stated"),
    ("<answer>6 and 7", "7", "last_number"),
    # stated
    (r"Write \boxed 5. The answer is 6.", "6", "stated"),
    ("The answer is 42. Thanks for asking!", "42", "stated"),
    ("The answer is 3.5.", "3.5", "stated"),
    ("The answer is: $x = 3$.", "$x = 3$", "stated"),
    ("Answer: 12 apples", "12 apples", "stated"),
    ("**Answer:** 42", "42", "stated"),
    ("**Answer**: 42", "42", "stated"),
    ("Final answer: **1,234**", "1,234", "stated"),
    ("**Final Answer: 12**", "12", "stated"),
    ("**The answer is 12**", "12", "stated"),
    ("The final answer is $(1, 2)$. I hope it is correct.", "$(1, 2)$", "stated"),
    ("### Final Answer\n\n**42**", "42", "stated"),
    ("Final Answer:\n\n$\\frac12$\n", "$\\frac12$", "stated"),
    ("The answer to the question is 5.", "5", "stated"),
    ("My answer would be 8", "8", "stated"),
    ("The answer is 4. No: the final answer is 5.", "5", "stated"),
    ("The answer is 4.\nWait. The answer is 5.\nAnswer:", "5", "stated"),
    ("The answer is $f(x) = 1. $ Done", "$f(x) = 1. $ Done", "stated"),
    # hashes
    ("6 * 7 = 42\n#### 42", "42", "hashes"),
    ("#### -1,234.5\n\n", "-1,234.5", "hashes"),
    # last number
    ("#### Step 1\nso x is -4", "-4", "last_number"),
    ("They have 3 cats and 1,250.50 dollars", "1,250.50", "last_number"),
    ("10 - 2", "2", "last_number"),
    ("x2 = 7", "7", "last_number"),
    ("so y = −12", "−12", "last_number"),
    ("that is 3/4 of it", "3/4", "last_number"),
    ("about 50 %", "50 %", "last_number"),
    ("it costs $5", "$5", "last_number"),
    ("My answer is not 5", "5", "last_number"),
    ("2,3,45", "45", "last_number"),
    # nothing
    ("", None, None),
    ("I cannot solve this.", None, None),
    (r"\boxed{", None, None),
    (r"\boxed{\text{never closes", None, None),
    ("x2 and y3", None, None),
]

CHOICES = [
    ("B", "B", "whole"),
    ("(B)", "B", "whole"),
    ("B.", "B", "whole"),
    ("**B**", "B", "whole"),
    ("C) the cell", "C", "whole"),
    ("B\n\nBecause mitochondria make ATP.", "B", "whole"),
    ("option C", "C", "stated"),
    ("Option B is right", "B", "stated"),
    ("The answer is (D)", "D", "stated"),
    ("The answer is D, not B.", "D", "stated"),
    ("The correct answer is **(B) 12**.", "B", "stated"),
    ("The best answer is: J", "J", "stated"),
    ("Answer: $\\textbf{(E)}$", "E", "stated"),
    ("The answer is A because the others fail", "A", "stated"),
    ("The answer is A.", "A", "stated"),
    ("The answer is B. Wait, no. The answer is C.", "C", "stated"),
    (r"\boxed{B}", "B", "boxed"),
    (r"\boxed{\text{(B)}}", "B", "boxed"),
    (r"\boxed{\textbf{C}}", "C", "boxed"),
    (r"\boxed{(D) 12}", "D", "boxed"),
    ("<answer>C</answer>", "C", "tagged"),
    ("Comparing all of them, it must be (C).", "C", "last_letter"),
    ("A dog barks", None, None),
    ("The answer is A dog", None, None),
    ("The answer is a car", None, None),
    ("The answer is I think so", None, None),
    ("Answer: Beta", None, None),
    ("The answer is B-complex", None, None),
    (r"\boxed{A \cup B}", None, None),
    ("It is (A) or (B)", None, None),
    ("(A) or (B)", None, None),
    ("The answer is K", None, None),
    ("A", "A", "whole"),
    ("", None, None),
]


@pytest.mark.parametrize(("answer", "text", "rule"), ANSWERS)
def test_extract_answer_golden_case_gives_text_and_rule(answer, text, rule):
    assert extract_answer(answer) == (None if text is None else Extracted(text, rule))


@pytest.mark.parametrize(("answer", "letter", "rule"), CHOICES)
def test_extract_choice_golden_case_gives_letter_and_rule(answer, letter, rule):
    assert extract_choice(answer) == (None if letter is None else Extracted(letter, rule))


def test_choice_letter_text_of_an_option_is_no_letter():
    assert choice_letter("A dog") is None


N = 30_000
BOMBS = {
    "open boxes": r"\boxed{" * N,
    "braces": "{" * N,
    "closed braces": "{" * N + "}" * N,
    "backslashes": "\\" * N,
    "backslashes and a brace": "\\" * N + "boxed{",
    "boxed and spaces": r"\boxed" + " " * N,
    "heads": "the answer is " * N,
    "heads without end": "the answer to " * N,
    "spaces": "answer" + " " * N + "x",
    "lines": "\n" * N + "answer",
    "stars": "answer " + "*" * N,
    "hashes": "#" * N,
    "digits": "1" * N,
    "groups": "1,111" * N + "1",
    "minuses": "-1 " * N,
    "brackets": "(" * N + "A" + ")" * N + "!",
    "options": "option ((((" * N,
    "stops": "answer: " + "$(. " * N,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_extraction_regex_bomb_takes_linear_time(text):
    begin = time.process_time()
    extract_answer(text)
    extract_choice(text)
    # Quadratic time on these would be minutes; linear is a few tenths of a second.
    assert time.process_time() - begin < 3
