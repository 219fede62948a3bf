from collections.abc import Sequence

from typing_extensions import Buffer

class Model:
    """Weights of one model: written once, then read only."""

    def __new__(
        cls,
        *,
        vocab: int,
        dim: int,
        layers: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        ff: int,
        context: int,
        frequencies: Sequence[float],
        eps: float,
        qkv_bias: bool,
        qk_norm: bool,
        tied: bool,
        kernels: str | None = None,
    ) -> Model: ...
    def load(self, name: str, layer: int, dtype: str, data: Buffer, /) -> bool: ...
    def logits(self, tokens: Buffer, /) -> bytes: ...
    def likelihoods(self, tokens: Buffer, /) -> bytes: ...

class Engine:
    """Threads that work through jobs without the interpreter lock."""

    def __new__(
        cls, model: Model, *, threads: int, slots: int, pages: int, ends: Sequence[int]
    ) -> Engine: ...
    def submit(
        self,
        id: int,
        tokens: Buffer,
        key: bytes,
        *,
        temperature: float,
        top_p: float,
        limit: int,
        stream: bool,
    ) -> None: ...
    def cancel(self, id: int, /) -> None: ...
    def take(self, seconds: float, /) -> list[tuple[int, list[int], int]]: ...
    def close(self) -> None: ...

def supported() -> list[str]: ...
