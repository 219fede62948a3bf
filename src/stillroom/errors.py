"""Errors that a user can act on.

    StillroomError
    ├── RecipeError       a recipe or study file says something that cannot be done
    ├── SourceError       a source cannot be read, or is not what the recipe pins
    ├── StoreError        the store is torn, full, locked or of another version
    ├── ModelError        a model is unknown, unreachable, or answers in a way that stops the run
    ├── VerifierError     a verifier cannot start or keeps dying
    ├── ExportError       a dataset cannot be written or published
    └── SetupError        the machine lacks something: an extra, a tool, a setting

Every message reads ``<where>: <what is wrong, with the value>; <what was expected>. <what to do>.``
Programming errors stay ``TypeError``, ``ValueError`` and ``AssertionError``: they are ours to fix.
"""


class StillroomError(Exception):
    """A failure that the user can act on; its message is all that the command line prints."""


class RecipeError(StillroomError):
    """A recipe or study file says something that cannot be done."""


class SourceError(StillroomError):
    """A source cannot be read, or is not what the recipe pins."""


class StoreError(StillroomError):
    """The store is torn, full, locked or of another version."""


class ModelError(StillroomError):
    """A model is unknown, unreachable, or answers in a way that stops the run."""


class VerifierError(StillroomError):
    """A verifier cannot start, or its workers keep dying."""


class ExportError(StillroomError):
    """A dataset cannot be written or published."""


class SetupError(StillroomError):
    """The machine lacks something: an extra, a tool, a setting."""


class BudgetError(StillroomError):
    """A run has spent what it may, or cannot tell what it spends."""


class PilotDone(StillroomError):
    """A pilot has bought its draws; the run stops here as it was told to."""
