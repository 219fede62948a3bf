"""A program that stands for vLLM: same flags, but the local engine answers."""

from pathlib import Path

STAND_IN = """
import os, sys
from pathlib import Path
from stillroom.models.local.engine import LocalModel
from stillroom.models.local.serve import serve
folder, verb, model = sys.argv[1:4]
flags = dict(zip(sys.argv, sys.argv[1:]))
with open(f"{folder}/served", "a") as file:
    file.write(f"{os.getpid()} {model} {' '.join(sys.argv[4:])}\\n")
assert verb == "serve"
if os.path.exists(f"{folder}/broken"):
    sys.exit("no memory left on the GPU")
opened = LocalModel(Path(model), name=flags["--served-model-name"], threads=1)
serve(opened, flags["--host"], int(flags["--port"]))
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
