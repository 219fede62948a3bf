"""What several attempts at a question are worth together."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate the chance that at least one of k draws is correct.

    Unbiased: the mean over all ways to choose k of the n draws.

    Args:
        n: Draws taken per item; n >= k.
        c: Correct draws among them; 0 <= c <= n.
        k: Draws allowed; at least 1.

    Raises:
        ValueError: If the numbers do not fit together.

    Source: Chen et al. 2021, eq. 1 (arXiv 2107.03374).

    >>> pass_at_k(n=4, c=1, k=2)
    0.5
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"n={n}, c={c}, k={k}; expected 1 <= k <= n and 0 <= c <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """Grade a majority vote over the draws of one item, ties split evenly.

    Args:
        answers: What each draw answered, equal answers equally written; None for no answer, which
            has no vote.
        right: Whether each draw is correct.

    Returns:
        The share of the leading answers that are correct, 0 to 1; 0 if nobody answered.

    >>> majority(["4", "4", "5", "5", None], [True, True, False, False, False])
    0.5
    """
    votes: dict[str, int] = {}
    correct: dict[str, bool] = {}
    for answer, is_right in zip(answers, right, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
            correct[answer] = correct.get(answer, False) or is_right
    leading = [a for a, n in votes.items() if n == max(votes.values())]
    return sum(correct[a] for a in leading) / len(leading) if leading else 0.0
