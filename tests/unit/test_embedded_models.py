"""The models that ship: they load everywhere, write as taught, and are as good as said."""

import importlib.util
import json
import re
import sys
from hashlib import sha256
from pathlib import Path

import pytest

import stillroom.models
from stillroom.families import FAMILIES, LEVELS, SYSTEM_PROMPTS, Problem, problem, verify
from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.local import LocalModel

EMBEDDED = Path(stillroom.models.__file__).parent / "embedded"
NAMES = ("teacher-1", "novice-1", "base-1")
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_models.py"


def answers(name: str, items: list[Problem], style: str | None) -> list[Completion]:
    model = LocalModel(EMBEDDED / name, name=name, threads=1)
    system = (Message("system", SYSTEM_PROMPTS[style]),) if style else ()
    requests = [
        Request(name, (*system, Message("user", item.question)), Sampling(0.0, None, 256))
        for item in items
    ]
    replies = {request.key: reply for request, reply in model.complete(requests)}
    found = [replies[request.key] for request in requests]
    assert all(isinstance(reply, Completion) for reply in found)
    return found


def share_right(name: str, level: int) -> float:
    items = [
        problem(family, level=level, index=index, split="heldout", seed=5)
        for family in FAMILIES
        for index in range(6)
    ]
    right = 0
    for item, reply in zip(items, answers(name, items, "careful"), strict=True):
        boxes = re.findall(r"\\boxed\{(.*?)\}", reply.answer)
        right += bool(boxes) and verify(item, boxes[-1])
    return right / len(items)


def test_teacher_is_mostly_right_and_the_novice_clearly_less() -> None:
    teacher = [share_right("teacher-1", level) for level in (1, 3, 5)]
    novice = [share_right("novice-1", level) for level in (1, 3, 5)]
    assert sum(teacher) / 3 > 0.7
    assert teacher[0] > teacher[2]
    assert sum(novice) < sum(teacher) - 0.45


def test_each_style_is_followed() -> None:
    item = problem("words", level=4, index=0, split="heldout")
    careful, brief, plan = (
        answers("teacher-1", [item], style)[0] for style in ("careful", "brief", "plan")
    )
    for reply in (careful, brief, plan):
        assert reply.finish_reason == "stop"
        assert re.search(r"The answer is \\boxed\{[0-9]+\}\.$", reply.answer)
    assert careful.reasoning is not None
    assert brief.reasoning is not None
    assert plan.reasoning is not None
    assert "->" in careful.reasoning
    assert "->" not in brief.reasoning
    assert "multiply" in plan.reasoning


@pytest.mark.parametrize("name", NAMES)
def test_model_card_says_how_good_and_what_for(name: str) -> None:
    card = (EMBEDDED / name / "README.md").read_text("utf-8")
    assert "Proxy results are facts about proxies." in card
    assert all(family in card for family in FAMILIES)
    assert all(f"level {level}" in card for level in LEVELS)
    assert "distinct" in card


def test_all_files_together_are_a_few_megabytes() -> None:
    assert sum(file.stat().st_size for file in EMBEDDED.rglob("*") if file.is_file()) < 6e6


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_the_directory_as_we_do(name: str, monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    from stillroom.train.model import load_model

    spec = importlib.util.spec_from_file_location("make_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    directory = EMBEDDED / name
    question, system = "What is 588+697-74?\nGive the result.", SYSTEM_PROMPTS["careful"]
    reader = transformers.AutoTokenizer.from_pretrained(directory)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    theirs = reader.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    row = script.chat_row(tokenizer, system, question, "<think>\n1+1=2\n</think>\n\nDone.")
    assert theirs == row.tokens[: row.start]
    text = reader.decode(row.tokens[row.start :], skip_special_tokens=True)
    assert text == "<think>\n1+1=2\n</think>\n\nDone."
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    n = len(theirs)
    with torch.no_grad():
        other = model(torch.tensor([theirs])).logits
        bias = torch.full((1, 1, n, n), -1e4).triu(1)
        mine = load_model(directory)(torch.tensor([theirs]), torch.arange(n)[None], bias)
    assert torch.allclose(mine, other, atol=1e-3)
    assert json.loads((directory / "config.json").read_text("utf-8"))["model_type"] == "qwen2"


def test_a_frozen_name_means_the_same_weights():
    golden = Path(__file__).parents[1] / "golden" / "embedded_models.json"
    wanted = json.loads(golden.read_text("utf-8"))
    found = {name: sha256((EMBEDDED / name).read_bytes()).hexdigest() for name in wanted}
    # The ledger keeps answers by frozen name: other weights need another name, or a new release.
    assert found == wanted
