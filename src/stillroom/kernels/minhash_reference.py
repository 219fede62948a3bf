"""MinHash in plain Python: what `stillroom.kernels.minhash` computes. Slow."""

import re
from collections.abc import Sequence

from stillroom.kernels.ngrams_reference import words
from stillroom.text.normal import normal_form

BASE = 0x9FB21C651E98DF25
HALF, FULL = 2**32 - 1, 2**64 - 1
SPACE = re.compile("[ \t-\r]+")


def mix(a: int, b: int) -> int:
    """Mix two 64-bit numbers into one: both halves of a product."""
    product = (a ^ 0x9E3779B97F4A7C15) * (b ^ 0xD6E8FEB86659FD93)
    return (product & FULL) ^ (product >> 64)


def hash_bytes(raw: bytes) -> int:
    """Hash bytes, eight at a time."""
    state = len(raw)
    while len(raw) > 8:
        state, raw = mix(state, int.from_bytes(raw[:8], "little")), raw[8:]
    return mix(state, int.from_bytes(raw, "little"))


def shingles(text: str, *, size: int, unit: str) -> list[int]:
    """Hash the runs of words, or characters, of a text to 32 bits; fewer are one run."""
    if unit == "words":
        codes = [hash_bytes(word.encode()) for word in words(text)]
    else:
        form = SPACE.sub(" ", normal_form(text)).strip(" ")
        codes = [mix(ord(character), 1) for character in form]
    size = min(size, len(codes))
    runs = [codes[i : i + size] for i in range(len(codes) - size + 1)] if codes else []
    hashes = []
    for run in runs:
        rolled = 0
        for code in run:
            rolled = (rolled * BASE + code) & FULL
        hashes.append(mix(rolled, size) & HALF)
    return hashes


def keys(text: str, *, size: int, unit: str, bands: int, rows: int, seed: int) -> list[int]:
    """Return the bucket of a text in each band; 0 for a text without shingles."""
    hashes = shingles(text, size=size, unit=unit)
    if not hashes:
        return [0] * bands
    numbers = [mix(seed, j) for j in range(bands * rows)]
    least = [min((((n | 1) & HALF) * x + (n >> 32)) & HALF for x in hashes) for n in numbers]
    found = []
    for band in range(bands):
        key = rows
        for value in least[band * rows : (band + 1) * rows]:
            key = mix(key, value)
        found.append(key or 1)
    return found


def greedy(all_keys: Sequence[Sequence[int]]) -> dict[int, int]:
    """Drop each text that shares a bucket with one that stays; its witness is the first of them."""
    survivors: dict[tuple[int, int], int] = {}
    lost = {}
    for text, text_keys in enumerate(all_keys):
        buckets = [(band, key) for band, key in enumerate(text_keys) if key]
        earlier = [survivors[b] for b in buckets if b in survivors]
        if earlier:
            lost[text] = min(earlier)
        else:
            survivors.update((b, text) for b in buckets)
    return lost


def chains(all_keys: Sequence[Sequence[int]]) -> dict[int, int]:
    """Of all texts that are linked by shared buckets, the first stays and is the witness."""
    groups = {text: {text} for text in range(len(all_keys))}
    firsts: dict[tuple[int, int], int] = {}
    for text, text_keys in enumerate(all_keys):
        for band, key in enumerate(text_keys):
            if key:
                other = groups[firsts.setdefault((band, key), text)]
                if other is not groups[text]:
                    other |= groups[text]
                    for member in groups[text]:
                        groups[member] = other
    return {text: min(group) for text, group in groups.items() if min(group) != text}
