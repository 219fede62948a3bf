r"""The one normal form of a question: two questions are the same text when their forms are equal.

The form, step by step:

1. Each of the 246 characters that came to Unicode after version 14.0 with a case, a decomposition
   or a combining class becomes U+FFFD. Python 3.11 does not know them and Polars does, so any
   other treatment would make rows depend on the versions of both.
2. Superscript and subscript digits and signs get ``^`` and ``_`` before them, and fractions such as
   ``½`` a space: NFKC alone would make 2² into 22 and 1½ into 11⁄2.
3. Unicode NFKC: full-width letters, ligatures, ``²``, non-breaking spaces become plain ones.
4. Lower case by the full Unicode mapping, and final sigma written as sigma.
5. NFKC again, because lower-casing can leave marks uncomposed; so the form of a form is itself.
6. Every run of white space (Unicode ``White_Space``: 25 characters, spelled out below because
   ``\s`` differs by engine) becomes one space; none is left at the ends.

Punctuation, digits and accents are kept: ``x+1`` and ``x-1`` are different questions.

`normal_form` is the reference; `normal_form_expr` is the same function as a Polars expression.
"""

import re
import unicodedata

import polars as pl

_LATE = (
    "\u0897\u1acf-\u1add\u1ae0-\u1aeb\u1c89\ua7cb\ua7cc\ua7ce\ua7d2\ua7d4\ua7da\ua7dc\ua7f1"
    "\U000105c9\U000105d2\U000105da\U000105e4\U00010d50-\U00010d65\U00010d69-\U00010d6d"
    "\U00010efa\U00010efb\U00010efd-\U00010eff\U00011382-\U00011385\U0001138b\U0001138e"
    "\U00011390\U00011391\U000113b8\U000113bb\U000113c2\U000113c5\U000113c7-\U000113c9"
    "\U000113ce-\U000113d0\U00011f41\U00011f42\U0001611e-\U00016129\U0001612f\U00016d63"
    "\U00016d67-\U00016d6a\U00016ea0-\U00016eb8\U0001ccd6-\U0001ccf9\U0001e030-\U0001e06d"
    "\U0001e08f\U0001e4ec-\U0001e4ef\U0001e5ee\U0001e5ef\U0001e6e3\U0001e6e6"
    "\U0001e6ee\U0001e6ef\U0001e6f5"
)
_SUPER, _SUB, _FRACTION = "([⁰¹²³⁴-⁾]+)", "([₀-₎]+)", "([¼-¾⅐-⅟↉])"
# A single space is no match, which makes the common case four times as fast.
_BREAK = r"\t\n\x0b\x0c\r\x85\u1680\u2028\u2029"  # NFKC has made the others into plain spaces
_SPACE = f"[{_BREAK}][ {_BREAK}]*| [ {_BREAK}]+"

_late, _super, _sub, _fraction, _space = map(
    re.compile, (f"[{_LATE}]", _SUPER, _SUB, _FRACTION, _SPACE)
)


def normal_form(text: str) -> str:
    r"""Return the normal form of a question.

    >>> normal_form("  What\u00a0is \uff12\u00b2\n+ X? ")
    'what is 2^2 + x?'
    """
    text = _super.sub(r"^\1", _late.sub("\ufffd", text))
    text = _fraction.sub(r" \1", _sub.sub(r"_\1", text))
    text = unicodedata.normalize("NFKC", text).lower().replace("ς", "σ")
    return _space.sub(" ", unicodedata.normalize("NFKC", text)).strip(" ")


def normal_form_expr(column: str) -> pl.Expr:
    """Return `normal_form` of a string column as a Polars expression; null stays null."""
    text = pl.col(column)
    # Only rows with a character beyond ASCII pay for Unicode. Each of the two halves is empty where
    # the other speaks: Polars runs string functions under nulls too, and to join halves by `when`
    # takes three times as long as to concatenate them.
    is_ascii = text.str.len_bytes() == text.str.len_chars()
    plain = pl.when(is_ascii).then(text).otherwise(pl.lit("")).str.to_lowercase()
    other = pl.when(is_ascii).then(pl.lit("")).otherwise(text)
    other = other.str.replace_all(f"[{_LATE}]", "\ufffd")
    other = other.str.replace_all(_SUPER, "^$1").str.replace_all(_SUB, "_$1")
    other = other.str.replace_all(_FRACTION, " $1").str.normalize("NFKC").str.to_lowercase()
    other = other.str.replace_all("ς", "σ", literal=True).str.normalize("NFKC")
    return (plain + other).str.replace_all(_SPACE, " ").str.strip_chars(" ").alias(column)
