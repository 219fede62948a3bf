"""Read safetensors files: a JSON header, then raw numbers.

Covered: every offset, shape and length is checked against the file before a byte is used, so a
truncated or hostile file gives one clear error. Not covered: quantised types.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from stillroom.errors import ModelError

BYTES = {"F32": 4, "F16": 2, "BF16": 2}

# The limit of the reference reader; a longer header is an attack or another format.
MAX_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies.

    Attributes:
        path: The file that holds it.
        dtype: Type of its numbers, as safetensors names it.
        shape: Its lengths, outermost first.
        start: Its first byte in the file.
        size: Its length in bytes.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def read(self) -> bytes:
        """Read the raw numbers.

        Raises:
            ModelError: If the file got shorter since its header was read.
        """
        with self.path.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.size)
        if len(data) != self.size:
            raise ModelError(
                f"{self.path}: ends {self.size - len(data)} bytes early; expected a whole "
                "safetensors file. Copy or download it again."
            )
        return data


def read_header(path: Path) -> dict[str, Tensor]:
    """List the tensors of a file by name.

    Raises:
        ModelError: If the file is not a whole safetensors file.
    """

    def broken(what: str) -> ModelError:
        return ModelError(
            f"{path}: {what}; expected a whole safetensors file. Copy or download it again."
        )

    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                raise broken(f"header of {length:,} bytes in a file of {size:,} bytes")
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); expected model weights. "
            "Check the path and its permissions."
        ) from error
    except (ValueError, RecursionError) as error:
        raise broken("header is not JSON") from error
    if not isinstance(header, dict):
        raise broken("header is not a JSON object")
    start, tensors = 8 + length, {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensor = _tensor(path, entry, start)
        if tensor is None:
            raise broken(f"entry of tensor {name!r} is malformed")
        if tensor.start + tensor.size > size:
            end = tensor.start + tensor.size
            raise broken(f"tensor {name!r} ends at byte {end:,} of {size:,}")
        tensors[name] = tensor
    return tensors


def _tensor(path: Path, entry: Any, start: int) -> Tensor | None:
    """Check one header entry; None if it contradicts itself."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        return None
    lengths = [*shape, begin, end]
    if not isinstance(dtype, str) or not all(type(n) is int and n >= 0 for n in lengths):
        return None
    if end < begin or (dtype in BYTES and end - begin != prod(shape) * BYTES[dtype]):
        return None
    return Tensor(path, dtype, shape, start + begin, end - begin)
