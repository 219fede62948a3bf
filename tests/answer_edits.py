"""Edits of real references with a known effect: they keep the value, or they change it.

Each edit takes a bare reference and a random generator and gives the visible answer of a made-up
solution, or None where it does not fit. References come from the folder that STILLROOM_DATA names.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import zstandard

from stillroom.text.answers import last_boxed

Edit = Callable[[str, random.Random], str | None]

SOURCES = {
    "fixtures/math_train": lambda row: row["answer"],
    "benchmarks/math_test_5000": lambda row: last_boxed(row["solution"]),
    "fixtures/deepscaler_40k": lambda row: row["answer"],
    "fixtures/gsm8k_train": lambda row: row["answer"],
    "fixtures/aime_1983_2023": lambda row: row["answer"],
    "benchmarks/olympiadbench_oe_en": lambda row: row["answer"][0] if row["answer"] else None,
    "benchmarks/hmmt_feb25": lambda row: row["answer"],
    "benchmarks/olymmath": lambda row: row["answer"],
    "benchmarks/comp_math_24_25": lambda row: row["answer"],
    "fixtures/theoremqa": lambda row: row["answer"],
    "fixtures/scibench": lambda row: row["answer"],
}


class Case(NamedTuple):
    """One pair: the kind of edit, whether it keeps the value, and both sides."""

    kind: str
    keeps: bool
    reference: str
    answer: str


def references(data: Path) -> list[str]:
    """Return the different references of all sources, none of them longer than 120 characters."""
    found: set[str] = set()
    for name, answer_of in SOURCES.items():
        with zstandard.open(data / f"{name}.jsonl.zst", "rt", encoding="utf-8") as lines:
            for line in lines:
                answer = answer_of(json.loads(line))
                answer = str(answer).strip() if answer is not None else ""
                whole = answer.replace(r"\$", "").count("$") % 2 == 0 and depth(answer) == 0
                if 0 < len(answer) <= 120 and whole:
                    found.add(answer)
    return sorted(found)


def depth(text: str) -> int:
    return text.count("{") - text.count("}")


def cases(data: Path, *, each: int) -> Iterator[Case]:
    """Make up to `each` pairs of every kind, the same on every run."""
    answers = references(data)
    for keeps, edits in ((True, KEEP), (False, CHANGE)):
        for kind, edit in edits.items():
            rng = random.Random(kind)
            made = 0
            for reference in rng.sample(answers, len(answers)):
                answer = edit(reference, rng)
                if answer is not None and (keeps or answer != boxed(reference)):
                    yield Case(kind, keeps, reference, answer)
                    made += 1
                    if made == each:
                        break


# --- what a reference is ------------------------------------------------------------------------

INTEGER = re.compile(r"-?\d{1,15}")
FRACTION = re.compile(r"(-?)\\d?frac\{(\d+)\}\{(\d+)\}")
DECIMAL = re.compile(r"-?\d+\.\d+")
SURD = re.compile(r"(\d*) ?\\sqrt ?\{(\d+)\}")
SURD_FRACTION = re.compile(r"\\frac\{(\d*) ?\\sqrt ?\{(\d+)\}\}\{(\d+)\}")
PI = re.compile(r"(\d+) ?\\pi")
PAIR = re.compile(r"(?:\\left)?\(([^()\[\],]+),([^()\[\],]+)(?:\\right)?\)")
INTERVAL = re.compile(r"([(\[])([^()\[\],]+),([^()\[\],]+)([)\]])")
UNION = re.compile(r"([(\[][^()\[\]]+,[^()\[\]]+[)\]]) ?\\cup ?([(\[][^()\[\]]+,[^()\[\]]+[)\]])")
INTEGERS = re.compile(r"-?\d+(?:, ?-?\d+)+")
TERM = r"\d*(?:\\frac\{\d+\}\{\d+\})?(?:\\sqrt\{\d+\}|\\pi|[a-hj-z](?:\^\d|\^\{\d+\})?)*"
SUM = re.compile(rf"-?(?!\+|$){TERM}(?: ?[-+] ?(?=[\\\da-z]){TERM})+")
POLYNOMIAL = re.compile(r"-?[\da-hj-z^{} ]*[a-hj-z](?:\^\d|\^\{\d+\})? ?[-+] ?[-+\da-hj-z^{} ]+")
LINE = re.compile(r"y ?= ?(-?\d*x ?[-+] ?\d+)")
PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?\\%")
DEGREES = re.compile(r"(\d+) ?\^ ?\{?\\circ\}?")
UNIT = re.compile(r"(\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\}) ?\\text ?\{ ?([a-z ]{2,20})\}")
WORD = re.compile(r"\\text\{([A-Z][a-z]{3,})\}|([A-Z][a-z]{3,})")
BASED = re.compile(r"(\d+)_\{?(\d+)\}?")
VECTOR = re.compile(r"\\begin\{pmatrix\} ?(.+?) ?\\end\{pmatrix\}")
MIXED = re.compile(r"(\d+) ?\\frac\{(\d+)\}\{(\d+)\}")
COMPLEX = re.compile(r"(-?\d+) ?([-+]) ?(\d+)i")
DOLLARS = re.compile(r"\\\$ ?([\d,.]+\d)")
SCIENTIFIC = re.compile(r"(\d+(?:\.\d+)?) ?\\times ?10\^\{?(-?\d+)\}?")


def boxed(text: str) -> str:
    return rf"Therefore the answer is \boxed{{{text}}}."


def of(pattern: re.Pattern[str], write: Callable[..., str | None]) -> Edit:
    """Edit references of a pattern: `write` gets its groups, or the whole if it has none."""

    def edit(reference: str, rng: random.Random) -> str | None:
        found = pattern.fullmatch(reference)
        if found is None:
            return None
        text = write(*(found.groups() if pattern.groups else (reference,)))
        return None if text is None else boxed(text)

    return edit


def of_any(write: Callable[[str], str | None]) -> Edit:
    def edit(reference: str, rng: random.Random) -> str | None:
        text = write(reference)
        return None if text is None or text == reference else boxed(text)

    return edit


def whole(write: Callable[[str], str | None]) -> Edit:
    """Edit the whole visible answer, the box left out."""
    return lambda reference, rng: write(reference)


def symbolic(reference: str) -> bool:
    """Tell whether a reference is mathematics in one part, with no words, signs or delimiters."""
    bare = re.sub(r"\\[dt]?frac|\\sqrt|\\pi|\\cdot|\\left|\\right", "", reference)
    return re.fullmatch(r"(?:(?![a-zA-Z]{3})[a-zA-Z0-9+*/^{}() !.-])+", bare) is not None and not (
        re.search(r"\d\.(?!\d)|[a-z] [a-z]|\bor\b|[a-zA-Z]{2}", bare)
    )


def decimal_of(fraction: Fraction) -> str | None:
    bottom = fraction.denominator
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    if bottom != 1 or fraction.denominator == 1:
        return None
    digits = 0
    while (fraction * 10**digits).denominator != 1:
        digits += 1
    whole_part = abs(fraction * 10**digits).numerator
    text = f"{whole_part:0{digits + 1}d}"
    return ("-" if fraction < 0 else "") + f"{text[:-digits]}.{text[-digits:]}"


def value(sign: str, top: str, bottom: str) -> Fraction:
    return Fraction(int(f"{sign}{top}"), int(bottom))


def terms(text: str) -> list[str]:
    """Split a sum into its terms, each with its sign."""
    parts = re.findall(r"[-+]?[^-+]+", text.replace(" ", ""))
    return [part if part[0] in "-+" else f"+{part}" for part in parts]


def joined(parts: list[str]) -> str:
    return "".join(parts).removeprefix("+")


def turned(text: str) -> str | None:
    return joined(terms(text)[::-1]) if "^{-" not in text else None


def pulled(factor: str, inside: str) -> int:
    return int(factor or 1) ** 2 * int(inside)


def listed(text: str, change: Callable[[list[str]], list[str] | None]) -> str | None:
    items = [item.strip() for item in text.split(",")]
    if len(set(items)) < 2 or re.search(r"\d{1,3},\d{3}(?!\d)", text):
        return None
    changed = change(items)
    return None if changed is None else ", ".join(changed)


def infinite(*ends: str) -> bool:
    return any("infty" in end for end in ends)


def as_inequality(opens: str, low: str, high: str, closes: str) -> str | None:
    try:
        if Fraction(low.strip()) >= Fraction(high.strip()):
            return None  # [4, 1] is a list
    except ValueError:
        return None
    signs = [r"\le" if bracket in "[]" else "<" for bracket in (opens, closes)]
    return f"{low} {signs[0]} x {signs[1]} {high}"


def is_interval(*parts: str) -> bool:
    return parts[0] + parts[-1] != "()" or infinite(*parts[1:-1])


def interval(write: Callable[..., str | None]) -> Edit:
    return of(INTERVAL, lambda *parts: write(*parts) if is_interval(*parts) else None)


KEEP: dict[str, Edit] = {
    # Wrappers
    "as it is": lambda t, rng: boxed(t),
    "$...$ in the box": of_any(lambda t: f"${t}$" if "$" not in t else None),
    "$$...$$ in the box": of_any(lambda t: f"$${t}$$" if "$" not in t else None),
    r"\(...\) in the box": of_any(lambda t: rf"\({t}\)" if "$" not in t else None),
    r"\[...\] in the box": of_any(lambda t: rf"\[{t}\]" if "$" not in t else None),
    "bold": of_any("**{}**".format),
    "full stop in the box": of_any(lambda t: f"{t}." if t[-1] not in ".?!" else None),
    "spaces and a newline": of_any("\n  {} \n".format),
    "braces around": of_any(lambda t: f"{{{t}}}" if "$" not in t else None),
    "nested box": of_any(lambda t: rf"\boxed{{{t}}}" if "$" not in t else None),
    r"\displaystyle": of_any(lambda t: rf"\displaystyle {t}" if symbolic(t) else None),
    "thin spaces": of_any(lambda t: rf"\,{t}\;" if symbolic(t) else None),
    r"\left and \right": of_any(
        lambda t: (
            re.sub(r"([)\]])", r"\\right\1", re.sub(r"([(\[])", r"\\left\1", t))
            if symbolic(t.replace(",", "")) and "left" not in t and "sqrt[" not in t
            else None
        )
    ),
    "loose spaces": of_any(
        lambda t: re.sub(r"(?<=[^ \\{(\[,])([-+,])(?=[^ ])", r" \1 ", t) if symbolic(t) else None
    ),
    "no spaces": of_any(
        lambda t: re.sub(r" ?([-+=]) ?", r"\1", t) if symbolic(t) and " " in t else None
    ),
    "words, no box": whole(
        lambda t: f"So we are done.\n\nThe final answer is ${t}$." if symbolic(t) else None
    ),
    "words and bold, no box": whole(lambda t: f"**Final Answer:** ${t}$" if symbolic(t) else None),
    "answer tags": whole(lambda t: f"Some words.\n<answer>{t}</answer>"),
    "box after other boxes": lambda t, rng: rf"First \boxed{{17}}, and in the end \boxed{{{t}}}",
    "display line with a box": lambda t, rng: (
        rf"Thus \[ \boxed{{{t}}} \]" if "$" not in t else None
    ),
    "GSM8K line": whole(lambda t: f"and so on\n#### {t}" if INTEGER.fullmatch(t) else None),
    "named x": of_any(lambda t: f"x = {t}" if symbolic(t) and "x" not in t else None),
    "unicode minus": of_any(lambda t: t.replace("-", "−") if symbolic(t) else None),
    # Integers and decimals
    "thousands": of(INTEGER, lambda t: f"{int(t):,}" if abs(int(t)) > 999 else None),
    "thousands in braces": of(
        INTEGER, lambda t: f"{int(t):,}".replace(",", "{,}") if abs(int(t)) > 999 else None
    ),
    "thousands by thin spaces": of(
        INTEGER, lambda t: f"{int(t):,}".replace(",", r"\,") if abs(int(t)) > 9999 else None
    ),
    "plus sign": of(INTEGER, lambda t: f"+{t}" if t[0] != "-" else None),
    "zero decimals": of(INTEGER, "{}.00".format),
    "over one": of(INTEGER, "{}/1".format),
    "scientific": of(
        INTEGER,
        lambda t: (
            rf"{t[0]}.{t[1:]} \times 10^{{{len(t) - 1}}}" if t[0] != "-" and len(t) > 3 else None
        ),
    ),
    "e notation": of(INTEGER, lambda t: f"{t}e0" if len(t) > 2 else None),
    "text around": of(INTEGER, r"\text{{{}}}".format),
    "unit in text": of(INTEGER, r"{}\text{{ cm}}".format),
    "square unit": of(INTEGER, r"{} \text{{ cm}}^2".format),
    "unit in words": of(INTEGER, "{} apples".format),
    "trailing zeros": of(DECIMAL, "{}00".format),
    "no leading zero": of(
        DECIMAL, lambda t: t.replace("0.", ".", 1) if re.match(r"-?0\.", t) else None
    ),
    "decimal as a fraction": of(
        DECIMAL, lambda t: r"\frac{{{0.numerator}}}{{{0.denominator}}}".format(Fraction(t))
    ),
    "decimal in scientific form": of(
        DECIMAL,
        lambda t: (
            rf"{(Fraction(t) * 1000).numerator} \times 10^{{-3}}"
            if (Fraction(t) * 1000).denominator == 1
            else None
        ),
    ),
    "scientific as a decimal": of(
        SCIENTIFIC,
        lambda a, p: (
            str((Fraction(a) * Fraction(10) ** int(p)).numerator)
            if (Fraction(a) * Fraction(10) ** int(p)).denominator == 1 and abs(int(p)) < 25
            else None
        ),
    ),
    r"scientific with \cdot": of(SCIENTIFIC, lambda a, p: rf"{a} \cdot 10^{{{p}}}"),
    # Fractions
    r"\dfrac": of_any(lambda t: t.replace(r"\frac", r"\dfrac") if symbolic(t) else None),
    r"\tfrac": of_any(lambda t: t.replace(r"\frac", r"\tfrac") if symbolic(t) else None),
    "fraction by a slash": of(FRACTION, "{}{}/{}".format),
    "exact decimal": of(FRACTION, lambda s, a, b: decimal_of(value(s, a, b))),
    "ten decimals": of(
        FRACTION,
        lambda s, a, b: f"{s}{int(a) / int(b):.10f}" if len(a) < 4 and len(b) < 4 else None,
    ),
    "not in lowest terms": of(
        FRACTION, lambda s, a, b: rf"{s}\frac{{{3 * int(a)}}}{{{3 * int(b)}}}"
    ),
    "minus on top": of(FRACTION, lambda s, a, b: rf"\frac{{-{a}}}{{{b}}}" if s else None),
    "minus below": of(FRACTION, lambda s, a, b: rf"\frac{{{a}}}{{-{b}}}" if s else None),
    "mixed number": of(
        FRACTION,
        lambda s, a, b: (
            rf"{s}{int(a) // int(b)}\frac{{{int(a) % int(b)}}}{{{b}}}"
            if int(a) > int(b) and int(a) % int(b)
            else None
        ),
    ),
    "mixed number in words": of(
        FRACTION,
        lambda s, a, b: (
            f"{s}{int(a) // int(b)} {int(a) % int(b)}/{b}"
            if int(a) > int(b) and int(a) % int(b)
            else None
        ),
    ),
    "mixed as improper": of(MIXED, lambda w, a, b: rf"\frac{{{int(w) * int(b) + int(a)}}}{{{b}}}"),
    "short fraction": of(
        FRACTION, lambda s, a, b: rf"{s}\frac{a}{b}" if len(a) == len(b) == 1 else None
    ),
    # Surds and constants
    "root as a power": of(SURD, lambda a, b: rf"{a}({b})^{{1/2}}" if a else rf"{b}^{{1/2}}"),
    "factor pulled inside": of(SURD, lambda a, b: rf"\sqrt{{{pulled(a, b)}}}" if a else None),
    r"\cdot before the root": of(SURD, lambda a, b: rf"{a} \cdot \sqrt{{{b}}}" if a else None),
    "plain sqrt()": of(SURD, lambda a, b: f"{a}*sqrt({b})" if a else f"sqrt({b})"),
    "unicode root": of(SURD, lambda a, b: f"{a}√{{{b}}}"),
    "root of a digit without braces": of(
        SURD, lambda a, b: rf"{a}\sqrt{b}" if len(b) == 1 else None
    ),
    "root by a slash": of(SURD_FRACTION, lambda a, b, c: rf"{a}\sqrt{{{b}}}/{c}"),
    "fraction before the root": of(
        SURD_FRACTION, lambda a, b, c: rf"\frac{{{a or 1}}}{{{c}}}\sqrt{{{b}}}"
    ),
    "root below": of(
        SURD_FRACTION, lambda a, b, c: rf"\frac{{{int(a or 1) * int(b)}}}{{{c}\sqrt{{{b}}}}}"
    ),
    r"\pi \cdot": of(PI, lambda a: rf"\pi \cdot {a}"),
    "unicode pi": of(PI, "{}π".format),
    "six decimals of a root": of(
        SURD, lambda a, b: f"{int(a or 1) * int(b) ** 0.5:.8f}" if int(b) ** 0.5 % 1 else None
    ),
    # Sums, polynomials, equations
    "terms turned": of_any(lambda t: turned(t) if SUM.fullmatch(t) else None),
    "plus zero": of_any(lambda t: f"{t} + 0" if SUM.fullmatch(t) else None),
    "twice a half": of_any(lambda t: rf"\frac{{2({t})}}{{2}}" if SUM.fullmatch(t) else None),
    "minus taken out": of_any(
        lambda t: (
            "-(" + joined([("-" if p[0] == "+" else "+") + p[1:] for p in terms(t)]) + ")"
            if SUM.fullmatch(t)
            else None
        )
    ),
    "polynomial times one": of_any(
        lambda t: rf"1 \cdot ({t})" if POLYNOMIAL.fullmatch(t) else None
    ),
    "sides swapped": of(LINE, "{} = y".format),
    "all on one side": of(LINE, "y - ({}) = 0".format),
    "equation times two": of(LINE, "2y = 2({})".format),
    "complex turned": of(COMPLEX, lambda a, s, b: f"{'' if s == '+' else '-'}{b}i + {a}"),
    # Pairs, intervals, lists
    "pair with spaces": of(PAIR, "( {} , {} )".format),
    "pair with braces": of(PAIR, lambda a, b: rf"\left({a}, {b}\right)"),
    "pair with decimals": of(
        PAIR,
        lambda a, b: (
            f"({a.strip()}.0, {b.strip()}.0)"
            if INTEGER.fullmatch(a.strip()) and INTEGER.fullmatch(b.strip())
            else None
        ),
    ),
    "interval with spaces": interval("{}{} , {}{}".format),
    "interval with +infinity": interval(
        lambda o, a, b, c: f"{o}{a},+{b.strip()}{c}" if b.strip() == r"\infty" else None
    ),
    "interval as an inequality": interval(as_inequality),
    "interval with a name": interval(lambda o, a, b, c: rf"x \in {o}{a}, {b}{c}"),
    "union turned": of(UNION, lambda a, b: rf"{b} \cup {a}"),
    "list turned": of(INTEGERS, lambda t: listed(t, lambda items: items[::-1])),
    "list with and": of(
        INTEGERS,
        lambda t: listed(
            t, lambda items: [*items[:-2], rf"{items[-2]} \text{{ and }} {items[-1]}"]
        ),
    ),
    "list in braces": of(
        INTEGERS, lambda t: rf"\{{{t}\}}" if listed(t, lambda items: items) else None
    ),
    "vector in square brackets": of(
        VECTOR, lambda inside: rf"\begin{{bmatrix}} {inside} \end{{bmatrix}}"
    ),
    "vector with other spaces": of(
        VECTOR,
        lambda inside: (
            rf"\begin{{pmatrix}}{inside.replace(' ', '')}\end{{pmatrix}}"
            if "frac" not in inside and "sqrt" not in inside
            else None
        ),
    ),
    # Signs and units
    "per cent without backslash": of(PERCENT, "{}%".format),
    "per cent in words": of(PERCENT, "{} percent".format),
    "per cent sign left out": of(PERCENT, str),
    "per cent as a decimal": of(PERCENT, lambda t: f"{float(Fraction(t) / 100):.6g}"),
    "degrees without a sign": of(DEGREES, str),
    "degree sign": of(DEGREES, "{}°".format),
    "degrees in words": of(DEGREES, r"{} \text{{ degrees}}".format),
    "unit left out": of(UNIT, lambda a, u: a),
    "unit in roman": of(UNIT, r"{}\,\mathrm{{{}}}".format),
    "dollar sign left out": of(DOLLARS, str),
    "dollars in words": of(DOLLARS, "{} dollars".format),
    "base in braces": of(BASED, "{}_{{{}}}".format),
    "base in text": of(BASED, r"{}_{{\text{{{}}}}}".format),
    # Words
    "lower case": of(WORD, lambda a, b: (a or b).lower()),
    "word in text": of(WORD, lambda a, b: rf"\text{{{a or b}}}"),
    "word in bold": of(WORD, lambda a, b: rf"\textbf{{{a or b}}}"),
}


def changed_digit(reference: str, rng: random.Random) -> str | None:
    if not symbolic(reference):
        return None
    places = [found.start() for found in re.finditer(r"\d", reference)]
    # Zero in front of digits and exponents 0 and 1 are left alone: they may not matter.
    if not places:
        return None
    place = rng.choice(places)
    digit = rng.choice([d for d in "123456789" if d != reference[place]])
    return boxed(reference[:place] + digit + reference[place + 1 :])


def another(reference: str, rng: random.Random) -> str | None:
    if not INTEGER.fullmatch(reference):
        return None
    near = int(reference) + rng.choice([-10, -2, 2, 3, 5, 10, 100])
    return boxed(str(near))


def other_pair(a: str, b: str) -> str | None:
    return f"({b.strip()}, {a.strip()})" if a.strip() != b.strip() else None


def vector_turned(inside: str) -> str | None:
    entries = [entry.strip() for entry in inside.split("\\\\")]
    if "&" in inside or entries == entries[::-1]:
        return None
    return r"\begin{pmatrix} " + r" \\ ".join(entries[::-1]) + r" \end{pmatrix}"


def one_term_other_sign(text: str) -> str:
    parts = terms(text)
    parts[-1] = ("-" if parts[-1][0] == "+" else "+") + parts[-1][1:]
    return joined(parts)


CHANGE: dict[str, Edit] = {
    "one more": of(INTEGER, lambda t: str(int(t) + 1)),
    "one less": of(INTEGER, lambda t: str(int(t) - 1)),
    "a near number": another,
    "one digit changed": changed_digit,
    "last digit cut": of(INTEGER, lambda t: t[:-1] if len(t.lstrip("-")) > 1 else None),
    "digit added": of(INTEGER, lambda t: f"{t}7"),
    "other sign": of_any(
        lambda t: (
            None
            if not symbolic(t) or t == "0" or r"\pm" in t or "(" in t[:1] or "[" in t[:1]
            else t[1:]
            if INTEGER.fullmatch(t) and t[0] == "-"
            else f"-({t})"
        )
    ),
    "tenfold": of(INTEGER, lambda t: f"{t}0" if int(t) else None),
    "a tenth": of(INTEGER, lambda t: str(Fraction(int(t), 10)) if int(t) else None),
    "half more": of(INTEGER, "{}.5".format),
    "a letter added": of(INTEGER, lambda t: f"{t}x" if int(t) else None),
    r"times \pi": of(INTEGER, lambda t: rf"{t}\pi" if int(t) else None),
    "root taken": of(INTEGER, lambda t: rf"\sqrt{{{t}}}" if int(t) > 1 else None),
    "factorial": of(INTEGER, lambda t: f"{t}!" if 2 < int(t) < 100 else None),
    "list with another": of(INTEGER, lambda t: f"{t}, {int(t) + 3}"),
    "point moved": of(DECIMAL, lambda t: str(float(Fraction(t) * 10)) if float(t) else None),
    "decimals cut": of(
        DECIMAL, lambda t: t.partition(".")[0] if Fraction(t).denominator > 1 else None
    ),
    "last decimal other": of(DECIMAL, lambda t: t[:-1] + str((int(t[-1]) + 1) % 10)),
    "upside down": of(
        FRACTION,
        lambda s, a, b: rf"{s}\frac{{{b}}}{{{a}}}" if int(a) != int(b) and int(a) else None,
    ),
    "top one more": of(FRACTION, lambda s, a, b: rf"{s}\frac{{{int(a) + 1}}}{{{b}}}"),
    "bottom one more": of(
        FRACTION, lambda s, a, b: rf"{s}\frac{{{a}}}{{{int(b) + 1}}}" if int(a) else None
    ),
    "two decimals": of(
        FRACTION, lambda s, a, b: f"{s}{int(a) / int(b):.2f}" if int(a) * 100 % int(b) else None
    ),
    "top alone": of(FRACTION, lambda s, a, b: f"{s}{a}" if int(b) != 1 and int(a) else None),
    "radicand one more": of(SURD, lambda a, b: rf"{a}\sqrt{{{int(b) + 1}}}"),
    "root lost": of(SURD, lambda a, b: str(int(a or 1) * int(b)) if int(b) > 1 else None),
    "coefficient one more": of(SURD, lambda a, b: rf"{int(a or 1) + 1}\sqrt{{{b}}}"),
    "two decimals of a root": of(
        SURD, lambda a, b: f"{int(a or 1) * int(b) ** 0.5:.2f}" if int(b) ** 0.5 % 1 else None
    ),
    r"\pi lost": of(PI, str),
    "3.14 for pi": of(PI, lambda a: f"{int(a) * 3.14:.2f}"),
    "term lost": of_any(
        lambda t: joined(terms(t)[:-1]) if SUM.fullmatch(t) and terms(t)[-1][1:] != "0" else None
    ),
    "sign of a term": of_any(lambda t: one_term_other_sign(t) if SUM.fullmatch(t) else None),
    "sum plus one": of_any(lambda t: f"{t} + 1" if SUM.fullmatch(t) else None),
    "sum doubled": of_any(lambda t: f"2({t})" if SUM.fullmatch(t) else None),
    "exponent one more": of_any(
        lambda t: (
            re.sub(r"\^\{?(\d+)\}?", lambda f: f"^{{{int(f[1]) + 1}}}", t, count=1)
            if POLYNOMIAL.fullmatch(t) and "^" in t
            else None
        )
    ),
    "other letter": of_any(
        lambda t: (
            re.sub(r"[a-z]", lambda f: "w" if f[0] != "w" else "v", t)
            if POLYNOMIAL.fullmatch(t) and len(set(re.findall("[a-z]", t))) == 1
            else None
        )
    ),
    "slope one more": of(LINE, lambda right: "y = " + re.sub(r"^-?\d*x", "7919x", right)),
    "intercept one more": of(LINE, "y = {} + 1".format),
    "imaginary part turned": of(COMPLEX, lambda a, s, b: f"{a} {'-' if s == '+' else '+'} {b}i"),
    "pair swapped": of(PAIR, other_pair),
    "second of a pair": of(
        PAIR, lambda a, b: f"({a}, {b.strip()} + 1)" if not infinite(a, b) else None
    ),
    "pair cut": of(PAIR, lambda a, b: a.strip()),
    "pair as an interval": of(PAIR, lambda a, b: f"[{a}, {b}]"),
    "left end opened or closed": interval(
        lambda o, a, b, c: f"{'[' if o == '(' else '('}{a},{b}{c}" if not infinite(a) else None
    ),
    "right end opened or closed": interval(
        lambda o, a, b, c: f"{o}{a},{b}{']' if c == ')' else ')'}" if not infinite(b) else None
    ),
    "end moved": interval(
        lambda o, a, b, c: f"{o}{a},{b} + 1{c}" if not infinite(b) else f"{o}{a} - 1,{b}{c}"
    ),
    "half of a union": of(UNION, lambda a, b: a),
    "one of a list other": of(
        INTEGERS, lambda t: listed(t, lambda items: [*items[:-1], str(int(items[-1]) + 1000)])
    ),
    "one of a list lost": of(
        INTEGERS,
        lambda t: listed(t, lambda items: items[:-1] if items[-1] not in items[:-1] else None),
    ),
    "one of a list more": of(INTEGERS, lambda t: listed(t, lambda items: [*items, "99991"])),
    "entry of a vector": of(
        VECTOR,
        lambda inside: rf"\begin{{pmatrix}} 7919 + {inside} \end{{pmatrix}}",
    ),
    "vector turned": of(VECTOR, vector_turned),
    "per cent other": of(PERCENT, lambda t: rf"{Fraction(t) + 1}\%" if "." not in t else None),
    "per cent as a tenth": of(
        PERCENT, lambda t: f"{float(Fraction(t) / 10):.6g}" if float(t) else None
    ),
    "degrees other": of(DEGREES, lambda t: rf"{int(t) + 1}^\circ"),
    "other unit scale": of(UNIT, lambda a, u: rf"{a} \text{{ kilo{u.strip()}}}"),
    "unit, other number": of(UNIT, lambda a, u: rf"1{a} \text{{ {u}}}" if a[0] != "\\" else None),
    "dollars as cents": of(DOLLARS, lambda t: f"{t} cents" if float(t.replace(",", "")) else None),
    "dollars other": of(DOLLARS, lambda t: rf"\$1{t}"),
    "other base": of(BASED, lambda a, b: f"{a}_{{{int(b) + 1}}}"),
    "other digits in the base": of(BASED, lambda a, b: f"1{a}_{{{b}}}"),
    "base lost": of(BASED, lambda a, b: a),
    "base worked out": of(BASED, lambda a, b: f"{int(a) + 2}_{{{b}}}"),
    "power of ten other": of(SCIENTIFIC, lambda a, p: rf"{a} \times 10^{{{int(p) + 1}}}"),
    "other word": of(WORD, lambda a, b: "Zebra"),
    "a letter for a word": of(WORD, lambda a, b: "B"),
    "question mark": of_any(lambda t: "?"),
    "another's answer": lambda t, rng: (
        boxed(f"{rng.randint(10**6, 10**7)}") if not re.fullmatch(r"[\d,]{7,}", t) else None
    ),
}
