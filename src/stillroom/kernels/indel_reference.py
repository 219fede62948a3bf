"""The joins of `stillroom.kernels.indel` in plain Python: what they mean, without how.

Quadratic and slow. Tests and benches compare the kernels with it.
"""

from collections.abc import Sequence
from fractions import Fraction


def common(a: str, b: str) -> int:
    """Count the characters of a longest common subsequence.

    >>> common("abcd", "xbzd")
    2
    """
    row = [0] * (len(b) + 1)
    for x in a:
        left = diagonal = 0
        for j, y in enumerate(b, 1):
            left, diagonal = (diagonal + 1, row[j]) if x == y else (max(left, row[j]), row[j])
            row[j] = left
    return row[-1]


def percent(lcs: int, total: int) -> float:
    """Return the similarity of two texts, ``total`` characters together, as rapidfuzz rounds it."""
    return (1.0 - (total - 2 * lcs) / total) * 100.0 if total else 100.0


def reaches(lcs: int, total: int, threshold: float) -> bool:
    """Compare with the threshold as it is written: no rounding."""
    return 200 * lcs >= Fraction(str(threshold)) * total


def join(
    texts: Sequence[str], items: Sequence[str], threshold: float, *, limit: int = 1
) -> list[tuple[int, int, float]]:
    """Find the ``limit`` best items of each text; among equals the lower one is better."""
    found = []
    for i, a in enumerate(texts):
        scored = [(common(a, b), len(a) + len(b), j) for j, b in enumerate(items)]
        hits = [(s, t, j) for s, t, j in scored if reaches(s, t, threshold)]
        hits.sort(key=lambda hit: (-Fraction(hit[0], hit[1]) if hit[1] else -1, hit[2]))
        found += [(i, j, percent(s, t)) for s, t, j in hits[:limit]]
    return found


def pairs(texts: Sequence[str], threshold: float) -> list[tuple[int, int, float]]:
    """Find all pairs, the earlier text first."""
    found = []
    for j, b in enumerate(texts):
        for i, a in enumerate(texts[:j]):
            lcs, total = common(a, b), len(a) + len(b)
            if reaches(lcs, total, threshold):
                found.append((i, j, percent(lcs, total)))
    return sorted(found)


def dedup(texts: Sequence[str], threshold: float, *, rule: str = "greedy") -> dict[int, set[int]]:
    """Find the dropped texts, each with all the texts that may be named as its witness."""
    if rule == "pairwise_limit_5":
        found = _limited(texts, threshold)
    else:
        found = {(i, j) for i, j, _ in pairs(texts, threshold)}
    dropped: dict[int, set[int]] = {}
    for i, j in sorted(found, key=lambda pair: (pair[1], pair[0])):
        if rule != "greedy" or i not in dropped:
            dropped.setdefault(j, set()).add(i)
    return dropped


def _limited(texts: Sequence[str], threshold: float) -> set[tuple[int, int]]:
    """Find pairs as ``process.extract`` of rapidfuzz does: among different texts, five for each."""
    places: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        places.setdefault(text, []).append(i)
    different = list(places)
    found = set()
    for i, j, _ in join(different, different, threshold, limit=5):
        first, *others = sorted({*places[different[i]], *places[different[j]]})
        found |= {(first, other) for other in others}
    return found
