"""The `command` trainer: any program of yours, here, by Slurm or on a cluster.

The program is told where things are by environment variables, and by the same names in braces among
its arguments (without a shell):

    STILLROOM_ROWS      {rows}      rows as JSON lines of `messages`
    STILLROOM_PARQUET   {parquet}   folder of Parquet parts with question, reasoning and answer
    STILLROOM_BASE      {base}      directory of the base model
    STILLROOM_OUT       {out}       where to leave the model, in Hugging Face form
    STILLROOM_SEED      {seed}      of this replication, from 0
    STILLROOM_SETTINGS  {settings}  JSON file of all settings
    STILLROOM_FOLDER    {folder}    work folder; checkpoints left here are there after a kill

With `wait: file` the program only submits a job. The job says that it is over by a file in the
work folder, `done` or `failed`; what `failed` holds is the reason. A submitted job is not submitted
again by a later run, which waits for it in its turn.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from collections.abc import Mapping
from typing import Any

from stillroom.store.store import write_synced
from stillroom.train.tool import check_model, run_tool, write_conversations
from stillroom.train.trainer import Job, Setting, Trained, TrainingFailed

_SLOWEST_LOOK_S = 30.0


class Command:
    """Trains with a command.

    Settings: ``command``, a list of arguments, or a line that is split as a shell would; ``shell:
    true`` hands the line to ``/bin/sh`` instead; ``wait``, ``exit`` or ``file``. All others are
    yours: they reach the program in its settings file, and enter the student's key. The program's
    text does not; raise a setting of your own when it changes.
    """

    VERSION = 1
    TOGETHER = 1

    def settings(self, preset: str | None, given: Mapping[str, Setting]) -> dict[str, Any]:
        """Complete the settings."""
        if preset is not None:
            raise ValueError(f"preset is {preset!r}; expected none, as a command has no presets")
        line, shell = given.get("command"), given.get("shell", False)
        if not isinstance(shell, bool):
            raise ValueError(f"shell is {shell!r}; expected true or false")
        if not isinstance(line, str | tuple | list) or not line:
            raise ValueError(f"command is {line!r}; expected a line, or a list of arguments")
        if shell and not isinstance(line, str):
            raise ValueError(f"command is {list(line)!r}; expected a line, as shell is true")
        if given.get("wait", "exit") not in ("exit", "file"):
            raise ValueError(f"wait is {given['wait']!r}; expected exit or file")
        if isinstance(line, str) and not shell:
            try:
                line = tuple(shlex.split(line))
            except ValueError as error:
                raise ValueError(f"command is {line!r} ({error}); expected closed quotes") from None
        kept = line if isinstance(line, str) else list(line)
        return {"wait": "exit", **given, "command": kept, "shell": shell}

    def train(self, job: Job) -> Trained:
        """Run the command, and take the model that it leaves."""
        folder = job.folder.resolve()
        out, described = folder / "out", folder / "settings.json"
        rows = folder / "rows.jsonl"
        count = write_conversations(job, rows)
        write_synced(described, json.dumps(dict(job.settings), indent=1) + "\n")
        places = {
            "rows": str(rows), "parquet": str(job.rows.resolve()),
            "base": str(job.base.resolve()), "out": str(out), "seed": str(job.seed),
            "settings": str(described), "folder": str(folder),
        }  # fmt: skip
        command = job.settings["command"]
        if job.settings["shell"]:
            command = ["/bin/sh", "-c", command]
        else:
            named = re.compile(r"\{(" + "|".join(places) + r")\}")
            command = [named.sub(lambda found: places[found[1]], part) for part in command]
        submitted = folder / "submitted"
        if not submitted.exists():
            shutil.rmtree(out, ignore_errors=True)
            variables = {f"STILLROOM_{name.upper()}": value for name, value in places.items()}
            run_tool(command, folder / "command.log", environment=variables)
            if job.settings["wait"] == "file":
                write_synced(submitted, "")
        if job.settings["wait"] == "file":
            self._wait(job)
        check_model(out, "the command")
        shutil.rmtree(folder / "model", ignore_errors=True)
        out.rename(folder / "model")
        return Trained(rows=count)

    def _wait(self, job: Job) -> None:
        """Wait for the file that a submitted job leaves."""
        done, failed = job.folder / "done", job.folder / "failed"
        pause = 0.2
        while not done.exists():
            if failed.exists():
                reason = failed.read_text("utf-8", "replace").strip()[-2000:]
                # The next run submits it again.
                for path in (failed, job.folder / "submitted"):
                    path.unlink()
                raise TrainingFailed(f"the submitted job failed: {reason or 'it does not say why'}")
            time.sleep(pause)
            pause = min(_SLOWEST_LOOK_S, 1.5 * pause)
