from typing_extensions import Buffer

def top(of: Buffer, among: Buffer, width: int, k: int, floor: float, /) -> tuple[bytes, bytes]: ...
def sift(
    rows: Buffer,
    width: int,
    threshold: float,
    base: int,
    index: Buffer,
    score: Buffer,
    /,
) -> int: ...
def unit(rows: Buffer, width: int, /) -> None: ...
def ngrams(texts: list[bytes], width: int, low: int, high: int, /) -> bytearray: ...
