"""Programs that train: run as processes of their own, listened to, and ended as a whole tree.

Covered: Ctrl-C and errors here (everything that the program started is ended, also what moved to a
session of its own, as torch's launchers do), a kill of this process (Linux then ends the program).
Not covered: what a program starts on other machines.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from stillroom.errors import SetupError
from stillroom.models.local.safetensors import read_header
from stillroom.models.supervise import end_with_parent
from stillroom.text.think import join_thinking
from stillroom.train.trainer import Job, TrainingFailed

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable: the GPUs that a program may use."""

_LAST_WORDS = 12  # lines of a log in a message
_READ = 1 << 16  # bytes of a log that are looked through
_LONGEST = 400  # characters of an error
# What Python prints at the end of a traceback, in one of several processes maybe.
_ERROR = re.compile(r"(\[\w+\]: ?)?([A-Za-z_]\w*\.)*[A-Z]\w*(Error|Exception)(:|$)")
_LOOK_S = 0.2
_STOP_S = 10.0


def run_tool(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Run a program to its end.

    Args:
        command: The program and its arguments; no shell is involved.
        log: What it says is appended here.
        environment: Added to that of this process.
        look: Called now and then while it runs.

    Raises:
        SetupError: If there is no such program.
        TrainingFailed: If it ends with another status than 0; the message holds its last lines.
    """
    if shutil.which(command[0]) is None:
        raise SetupError(
            f"{command[0]}: no such program; expected one that trains. Install it, or correct "
            "the name."
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    try:
        while process.poll() is None:
            look()
            time.sleep(_LOOK_S)
    finally:
        if process.returncode is None:
            _end_tree(process)
    look()
    if process.returncode:
        raise TrainingFailed(
            f"{Path(command[0]).name} ended with status {process.returncode}; its log, {log}, "
            f"ends: {last_words(log, begin)}"
        )


def last_words(log: Path, begin: int = 0) -> str:
    """Return the last lines of a log on one line, from a byte on, and the first error before them.

    Launchers say much about a process that failed, and not why: that stands further up.
    """
    with suppress(OSError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - _READ))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
        said = [line.strip() for line in lines[-_LAST_WORDS:] if line.strip()]
        errors = (line.strip() for line in lines[:-_LAST_WORDS] if _ERROR.match(line))
        first = [f"{line[:_LONGEST]} ..." for line in islice(errors, 1)]
        if said:
            return " | ".join([*first, *said])
    return "(nothing)"


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """Ask a program and all its descendants to end, then make them."""
    tree = [process.pid, *_descendants(process.pid)]
    _signal(tree, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    _signal([*tree, *_descendants(process.pid)], signal.SIGKILL)
    process.wait()


def _signal(tree: Sequence[int], number: int) -> None:
    for pid in tree:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name in brackets may hold anything, blanks and brackets too.
            parent = int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        more = children.get(waiting.pop(), [])
        found += more
        waiting += more
    return found


def devices() -> list[str]:
    """Name the GPUs that programs may use: those of CUDA_VISIBLE_DEVICES, or all by number."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30)
        lines = listed.stdout.splitlines()
        return [str(n) for n in range(sum(line.startswith("GPU ") for line in lines))]
    return []


def gpus() -> int:
    """Count the GPUs that programs may use."""
    return len(devices())


def shares(there: Sequence[str], together: int) -> list[str]:
    """Divide GPUs among trainings at a time, as values of CUDA_VISIBLE_DEVICES.

    Every training gets as many as every other, so that they are alike; what is left over is idle.
    Of more trainings than GPUs, some have theirs in common.

    Args:
        there: The GPUs, at least one.
        together: Trainings at a time.

    >>> shares(["0", "1", "2"], 2), shares(["0", "1"], 3)
    (['0', '1'], ['0', '1', '0'])
    >>> shares(["0", "1", "2", "3"], 2)
    ['0,1', '2,3']
    """
    each = max(1, len(there) // together)
    firsts = [each * number % len(there) for number in range(together)]
    return [",".join(there[first : first + each]) for first in firsts]


def write_conversations(job: Job, path: Path) -> int:
    """Write the rows as JSON lines of ``messages``, and return how many.

    Reasoning stands in think tags before the answer, as datasets are published.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    rows = 0
    with partial.open("w", encoding="utf-8") as file:
        for example in job.examples():
            said = join_thinking(example.reasoning, example.answer)
            messages = [
                {"role": "user", "content": example.question},
                {"role": "assistant", "content": said},
            ]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
            rows += 1
    partial.replace(path)
    if not rows:
        raise TrainingFailed("there are no rows to train on")
    return rows


def check_model(directory: Path, maker: str) -> None:
    """Look whether a program left a model in Hugging Face form.

    Raises:
        TrainingFailed: If it did not, or a file of it is torn.
    """

    def refuse(what: str) -> TrainingFailed:
        return TrainingFailed(
            f"{maker} left {what} in {directory}; expected a model in Hugging Face form: "
            "config.json, tokenizer.json and safetensors"
        )

    for name in ("config.json", "tokenizer.json"):
        try:
            held = json.loads((directory / name).read_text("utf-8"))
        except FileNotFoundError:
            raise refuse(f"no {name}") from None
        except (OSError, ValueError) as error:
            raise refuse(f"a {name} that cannot be read ({error})") from None
        if not isinstance(held, dict):
            raise refuse(f"a {name} that is no JSON object")
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise refuse("no *.safetensors")
    index = directory / "model.safetensors.index.json"
    if index.exists():
        named = set(json.loads(index.read_text("utf-8")).get("weight_map", {}).values())
        missing = sorted(named - {path.name for path in weights})
        if missing:
            raise refuse(f"no {missing[0]}, which {index.name} names,")
    for path in weights:
        try:
            read_header(path)
        except Exception as error:
            raise refuse(f"a torn {path.name} ({error})") from None
