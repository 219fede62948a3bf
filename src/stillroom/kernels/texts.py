"""How texts are handed to the kernels: as columns that are read where they lie."""

from typing import Any

import polars as pl

from stillroom.text.normal import normal_form_expr


def columns(texts: pl.Series) -> tuple[Any, Any]:
    """Return a column, and the normal forms of its strings that are not plain ASCII.

    The kernels bring plain ASCII into normal form as they read it, so only other texts pay for it.

    Returns:
        Two capsules of Arrow streams; the second is None for a column that is not of strings.
    """
    if texts.dtype != pl.String:
        return texts.__arrow_c_stream__(), None
    beyond = texts.filter(texts.str.len_bytes() != texts.str.len_chars())
    forms = beyond.alias("text").to_frame().select(normal_form_expr("text"))["text"]
    return texts.__arrow_c_stream__(), forms.__arrow_c_stream__()
