"""Record golden rows of steps whose present version has none. What is there is never changed."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.golden.cases import ALL, golden_file, rows_of

for step in ALL:
    path = golden_file(step)
    if not path.exists():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows_of(step)]
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
        print(f"recorded {path.name}")
