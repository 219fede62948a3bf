"""What licences of rows allow, and how the hub names them.

What is covered: whether a licence is known to allow passing rows on, changed and for any use.
What is not: whether its conditions (credit, the same licence) are met, and the terms of the
teacher's maker. Only a person can judge those.
"""

import re

UNKNOWN = "unknown"

OPEN = frozenset(
    {
        "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd",
        "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "cc-by-2.0",
        "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
        "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0",
        "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
        "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc",
        "lgpl", "lgpl-2.1", "lgpl-3.0", "lppl-1.3c", "mit",
        "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by",
        "ofl-1.1", "osl-3.0", "pddl", "postgresql", "unlicense",
        "wtfpl", "zlib",
    }
)  # fmt: skip
"""Names, as on the hub, of licences that let anyone pass rows on, changed and for any use."""

CLOSED = frozenset(
    {
        "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    }
)  # fmt: skip
"""Names, as on the hub, of licences that forbid commercial use or changed copies."""


def hub_name(licence: str | None) -> str:
    """Write a licence as the hub does: lower case, with dashes.

    >>> hub_name("CC BY-NC 4.0"), hub_name("MIT License"), hub_name(None)
    ('cc-by-nc-4.0', 'mit', 'unknown')
    """
    words = re.sub(r"[\s_]+", "-", (licence or "").strip().lower())
    return words.removeprefix("the-").removesuffix("-licence").removesuffix("-license") or UNKNOWN


def objection(licence: str | None) -> str | None:
    """Say why rows of a licence must not be published without a person's word; None if they may.

    >>> objection("apache-2.0")
    >>> objection("cc-by-nc-4.0")
    'forbids commercial use'
    """
    name = hub_name(licence)
    if name in OPEN:
        return None
    if name == UNKNOWN:
        return "is not known"
    parts = name.split("-")
    if "nc" in parts or "noncommercial" in name.replace("-", ""):
        return "forbids commercial use"
    if "nd" in parts:
        return "forbids changed copies"
    return "is not one that is known to allow passing rows on"


def hub_metadata(licences: set[str | None]) -> dict[str, str]:
    """Choose the licence fields of a dataset card for rows of these licences."""
    names = {hub_name(licence) for licence in licences}
    if len(names) != 1:
        return {"license": "other", "license_name": "mixed", "license_link": "README.md#licences"}
    (name,) = names
    if name in OPEN | CLOSED | {UNKNOWN, "other"}:
        return {"license": name}
    slug = re.sub(r"[^a-z0-9.]+", "-", name)[:80].strip("-.") or "other"
    return {"license": "other", "license_name": slug, "license_link": "README.md#licences"}
