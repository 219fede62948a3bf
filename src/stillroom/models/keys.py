"""Where API keys come from: the environment, or a file of the user outside any project.

Covered: keys are read when they are needed, are never written anywhere, and never stand in a file
that a project might commit or share: a ``.env`` in the working directory is not read.

Not covered: the environment of a running process can be read by its user.
"""

import os
import stat
from pathlib import Path

from stillroom.errors import ModelError


def keys_file() -> Path:
    """Return the file of keys: what ``$STILLROOM_KEYS`` names, or keys.env beside the settings."""
    if named := os.environ.get("STILLROOM_KEYS"):
        return Path(named).expanduser()
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return settings / "stillroom" / "keys.env"


def find_key(name: str, *, where: str, what_for: str) -> str:
    """Return a key by the name of its environment variable.

    The environment counts first, then the file of keys, with lines as ``NAME=value``.

    Args:
        name: Of the environment variable.
        where: What needs it, for messages.
        what_for: The address that it opens, for messages.

    Raises:
        ModelError: If it is nowhere, is no key, or lies in a file that others may read.
    """
    key, place = os.environ.get(name, "").strip(), f"environment variable {name}"
    if not key:
        file = keys_file()
        key, place = _read(file).get(name, ""), f"{name} in {file}"
        if not key:
            raise ModelError(
                f"{where}: environment variable {name} is not set, and {file} does not hold it; "
                f"expected the API key for {what_for}. Export it, write it into that file, or "
                "remove api_key_env if the server needs none."
            )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ModelError(
            f"{where}: {place} holds blanks or characters outside ASCII; expected one API key. "
            "Set it again."
        )
    return key


def _read(file: Path) -> dict[str, str]:
    """Read lines such as ``export NAME="value"``; blank lines and comments are skipped."""
    try:
        text = file.read_text("utf-8")
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        # Not the error's own words: they may quote the content.
        raise ModelError(
            f"{file}: cannot be read ({type(error).__name__}); expected lines such as "
            "NAME=value. Correct it."
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ModelError(
            f"{file}: others may read it (mode {stat.S_IMODE(mode):o}); expected a file of keys "
            f"that only you may read. Run: chmod 600 {file}"
        )
    keys = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1]
            keys[name.strip()] = value
    return keys
