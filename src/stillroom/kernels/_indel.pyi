from collections.abc import Callable

from typing_extensions import Buffer

Found = tuple[bytes, bytes, bytes]
Tick = Callable[[int], object]

def join(
    texts: object,
    items: object,
    t: int,
    limit: int,
    workers: int,
    tick: Tick,
    kernels: str | None,
    /,
) -> Found: ...
def dedup(
    texts: object,
    order: Buffer | None,
    t: int,
    greedy: bool,
    workers: int,
    tick: Tick,
    kernels: str | None,
    /,
) -> Found: ...
def sorted(texts: object, /) -> object: ...
def pairs(
    sorted: object, start: int, stop: int, t: int, workers: int, tick: Tick, kernels: str | None, /
) -> Found: ...
def common(a: str, b: str, /) -> int: ...
def supported() -> list[str]: ...
