"""How texts are handed to the kernels: as columns that are read where they lie."""

from typing import Any

import polars as pl

from stillroom.text.normal import normal_form_expr

PIECE = r"[^ ]*[^\x00-\x7F][^ ]*"


def columns(texts: pl.Series) -> tuple[Any, Any]:
    """Return a column, and the normal forms of what is not plain ASCII in its strings.

    The kernels bring plain ASCII into normal form as they read it. A text is cut at its spaces,
    which no step of the normal form looks across, and only pieces beyond ASCII are brought into
    normal form here, each different one once.

    Returns:
        Two capsules of Arrow streams; the second is None for a column that is not of strings.
    """
    if texts.dtype != pl.String:
        return texts.__arrow_c_stream__(), None
    beyond = texts.filter(texts.str.len_bytes() != texts.str.len_chars())
    pieces = beyond.alias("piece").str.extract_all(PIECE).explode(empty_as_null=False).to_frame()
    different = pieces.unique(maintain_order=True)
    forms = different.with_columns(different.select(normal_form_expr("piece").alias("form")))
    found = pieces.join(forms, on="piece", how="left", maintain_order="left")["form"]
    return texts.__arrow_c_stream__(), found.__arrow_c_stream__()
