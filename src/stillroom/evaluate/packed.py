"""Tests that LiveCodeBench packs: base64 of zlib of a pickle of one text, which is JSON.

Unpickling runs whatever the file says, so nothing is unpickled here. The opcodes are walked without
being executed; a pickle of one text has a handful of them, and any other is refused.
"""

import base64
import binascii
import json
import pickletools
import zlib
from typing import Any

_TEXT = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_IDLE = {"PROTO", "FRAME", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP"}
_MOST = 1 << 29
"""Bytes that a pack may hold; a small file can unfold to any size."""


def read_pack(packed: str) -> Any:
    """Return what a pack holds.

    A text that is JSON already is read as such: small packs come unpacked.

    Raises:
        ValueError: If it is neither JSON nor a pack of one text that is JSON.
    """
    if packed.lstrip()[:1] in ("[", "{"):
        return json.loads(packed)
    try:
        raw = base64.b64decode(packed, validate=True)
        unfolder = zlib.decompressobj()
        pickled = unfolder.decompress(raw, _MOST)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"neither JSON nor base64 of zlib ({error})") from None
    if not unfolder.eof:
        what = f"more than {_MOST:,} bytes" if unfolder.unconsumed_tail else "cut off"
        raise ValueError(f"the pack is {what}")
    return json.loads(read_pickled_text(pickled))


def read_pickled_text(pickled: bytes) -> str:
    """Return the text of a pickle that holds one text and nothing else.

    Raises:
        ValueError: If it holds anything else; nothing of it is executed.
    """
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in _TEXT:
                texts.append(str(argument))
            elif opcode.name not in _IDLE:
                raise ValueError(f"it holds the opcode {opcode.name}, which is no text")
    except ValueError as error:
        raise ValueError(f"a pickle that is not read: {error}; expected one text") from None
    if len(texts) != 1:
        raise ValueError(f"a pickle that is not read: {len(texts)} texts; expected one")
    return texts[0]
