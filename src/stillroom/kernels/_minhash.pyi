from typing_extensions import Buffer

def keys(
    texts: object,
    forms: object,
    keys: Buffer,
    start: int,
    total: int,
    words: bool,
    size: int,
    bands: int,
    rows: int,
    seed: int,
    /,
) -> None: ...
def similarity(
    texts: object,
    forms: object,
    others: object,
    other_forms: object,
    words: bool,
    size: int,
    /,
) -> bytes: ...
def buckets(keys: Buffer, /) -> None: ...
def lost_to(firsts: Buffer, bands: int, chains: bool, /) -> bytes: ...
