"""Running code that nobody trusts.

`open_sandbox` gives the best sandbox that this machine allows, after attacking it; a `Sandbox` runs
`Job`s and gives `Result`s. What each backend closes is in ``docs/sandbox.md``.
"""

from stillroom.sandbox.choose import FLAG, Tried, open_sandbox, try_backend
from stillroom.sandbox.job import Job, Limit, Limits, Result, Sandbox

__all__ = [
    "FLAG", "Job", "Limit", "Limits", "Result", "Sandbox", "Tried", "open_sandbox", "try_backend",
]  # fmt: skip
