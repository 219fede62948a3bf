"""A model that a program left, made a student: its weights, and all else from the base model.

Programs save weights in the type in which they trained, often float32: twice the size of the base,
and rounded by servers as they like. Files are converted tensor by tensor, so that one is in memory
at a time. What a sharded training did not gather is found by its shape.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from stillroom.models.local.safetensors import BYTES, Tensor, read_header
from stillroom.train.trainer import TrainingFailed

_TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NAMES = {torch: name for name, torch in _TORCH.items()}
_INDEX = "model.safetensors.index.json"
_HEAD = "lm_head.weight"  # some save it beside the embeddings that it is tied to, some do not


def take_student(source: Path, base: Path, model: Path) -> None:
    """Write a student: weights of one folder in the type of the base, and the base's other files.

    The student speaks to the world as its base does, byte for byte.

    Args:
        source: Folder that a program left.
        base: Folder of the base model; its config.json names the type, bfloat16 if none.
        model: Folder to write.

    Raises:
        TrainingFailed: If weights are missing or not whole, or hold NaN or infinity.
    """
    _check_shapes(source, base)
    shutil.rmtree(model, ignore_errors=True)
    partial = model.with_name(model.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config = json.loads((base / "config.json").read_text("utf-8"))
    wanted = _NAMES.get(config.get("dtype") or config.get("torch_dtype") or "bfloat16", "BF16")
    sizes = [_convert(path, partial / path.name, wanted) for path in _files(source)]
    if (source / _INDEX).exists():
        index = json.loads((source / _INDEX).read_text("utf-8"))
        index["metadata"] = {"total_size": sum(sizes)}
        (partial / _INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    for path in base.iterdir():
        ours = path.name == "training.json" or ".index." in path.name
        if path.suffix in (".json", ".jinja", ".txt", ".model") and path.is_file() and not ours:
            shutil.copyfile(path, partial / path.name)
    if not (partial / "tokenizer.json").exists():  # a base of older days has another form
        shutil.copyfile(source / "tokenizer.json", partial / "tokenizer.json")
    partial.rename(model)


def _check_shapes(model: Path, base: Path) -> None:
    """Look whether a model has every tensor of its base, in the same shape.

    Raises:
        TrainingFailed: If it has not.
    """
    wanted, found = _tensors(base), _tensors(model)
    config = json.loads((base / "config.json").read_text("utf-8"))
    if config.get("tie_word_embeddings", True) and _HEAD not in found:
        wanted.pop(_HEAD, None)
    for name, tensor in wanted.items():
        shape = found[name].shape if name in found else "missing"
        if shape != tensor.shape:
            raise TrainingFailed(
                f"{model}: tensor {name} is {shape}; expected {tensor.shape}, as in the base "
                "model. Was it gathered from all devices before it was saved?"
            )


def _files(folder: Path) -> list[Path]:
    """List the files of the weights: those that an index names, or all."""
    if (folder / _INDEX).exists():
        index = json.loads((folder / _INDEX).read_text("utf-8"))
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors"))


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in _files(folder) for name, tensor in read_header(path).items()}


def _convert(source: Path, target: Path, wanted: str) -> int:
    """Write one file with numbers of the wanted type, and return the bytes of its tensors."""
    import torch

    tensors = read_header(source)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        known = tensor.dtype in _TORCH
        size = tensor.size // BYTES[tensor.dtype] * BYTES[wanted] if known else tensor.size
        dtype = wanted if known else tensor.dtype
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of 8, as its format asks
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            raw = bytearray(tensor.read())
            if tensor.dtype not in _TORCH or not raw:
                file.write(raw)
                continue
            numbers = torch.frombuffer(raw, dtype=getattr(torch, _TORCH[tensor.dtype]))
            if not torch.isfinite(numbers).all():
                raise TrainingFailed(f"{name} holds NaN or infinity; lower the learning rate")
            numbers = numbers.to(getattr(torch, _TORCH[wanted]))
            file.write(numbers.view(torch.uint8).numpy().tobytes())
    return at
