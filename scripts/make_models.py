"""Make the embedded models from nothing: tokenizer, teachers and base student.

Usage: python scripts/make_models.py [NAME ...] [--out DIR] [--overwrite] [--grade]

Everything a model learns comes from `stillroom.families`, split "pretrain"; everything that it is
graded on comes from the split "heldout". Runs on one thread, and is deterministic on one machine;
another CPU type rounds differently and so ends in other weights. With --grade, the models are not
trained: those in place are graded again and their cards rewritten.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from stillroom.families import (
    FAMILIES,
    LEVELS,
    STYLES,
    SYSTEM_PROMPTS,
    Problem,
    problem,
    trace,
    verify,
)
from stillroom.families.styles import BRIEF, CAREFUL, PLAN
from stillroom.models.chat import Completion, Failure, Message, Request, Sampling
from stillroom.models.local.engine import LocalModel
from stillroom.train.batches import TokenRow
from stillroom.train.loop import TrainSettings, train
from stillroom.train.model import ModelConfig, Qwen2, load_model, save_weights

END_OF_TEXT, TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 512
LONGEST = 1024  # tokens of prompt and answer together

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def make_tokenizer(seed: int = 0) -> Tokenizer:
    """Train a byte-level BPE in which every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    # The pre-tokenizer of Qwen2 to the letter: `transformers` builds it from the architecture's
    # name, whatever tokenizer.json says.
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=[END_OF_TEXT, TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = []
    for index in range(400):
        for family in FAMILIES:
            for level in LEVELS:
                item = problem(family, level=level, index=index, split="pretrain", seed=seed)
                style = STYLES[index % len(STYLES)]
                reasoning, answer = trace(item, style, seed=seed)
                texts.append(f"{item.question}\n{reasoning}\n\n{answer}")
        if index % 10 == 0:
            texts += [f"system\n{prompt}user\nassistant\n" for prompt in SYSTEM_PROMPTS.values()]
    tokenizer.train_from_iterator(texts, trainer)
    # Not special, so that skipping special tokens in decoding keeps them.
    tokenizer.add_tokens(
        [AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)]
    )
    return tokenizer


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a model is shown in training."""

    families: Mapping[str, float]
    """Family to weight; those that are hard for a small model come up more often."""
    levels: Mapping[int, float]
    """Level to weight."""
    prompts: Mapping[str | None, float]
    """System prompt's style, or None for no system prompt, to weight."""
    unprompted: Mapping[str, float]
    """Style of the trace without a system prompt, to weight."""
    noisy: float = 0.0
    """Share of rows, 0 to 1, whose reasoning has one digit in ten replaced by a random one."""


def chat_row(tokenizer: Tokenizer, system: str | None, question: str, completion: str) -> TokenRow:
    """Encode one conversation as the chat template does; only the completion counts."""
    head = f"{TURN}system\n{system}{END_OF_TURN}\n" if system else ""
    prompt = f"{head}{TURN}user\n{question}{END_OF_TURN}\n{TURN}assistant\n"
    before = tokenizer.encode(prompt).ids
    return TokenRow(before + tokenizer.encode(completion + END_OF_TURN).ids, len(before))


def completion_of(reasoning: str, answer: str) -> str:
    """Put reasoning and answer together as a model writes them."""
    return f"<think>\n{reasoning}\n</think>\n\n{answer}"


def blurred(text: str, rng: random.Random) -> str:
    """Replace one digit in ten by a random one."""
    return "".join(
        rng.choice("0123456789") if sign in "0123456789" and rng.random() < 0.1 else sign
        for sign in text
    )


def training_rows(tokenizer: Tokenizer, mixture: Mixture, seed: int) -> Iterator[TokenRow]:
    """Yield rows of the pretrain split for ever, none by design the same."""
    rng = random.Random(f"rows/{seed}")
    names, name_weights = list(mixture.families), list(mixture.families.values())
    levels, level_weights = list(mixture.levels), list(mixture.levels.values())
    prompts, prompt_weights = list(mixture.prompts), list(mixture.prompts.values())
    styles, style_weights = list(mixture.unprompted), list(mixture.unprompted.values())
    index = 0
    while True:
        family = rng.choices(names, name_weights)[0]
        level = rng.choices(levels, level_weights)[0]
        item = problem(family, level=level, index=index, split="pretrain", seed=seed)
        asked = rng.choices(prompts, prompt_weights)[0]
        style = asked or rng.choices(styles, style_weights)[0]
        reasoning, answer = trace(item, style, seed=index)
        noise = random.Random(f"noise/{seed}/{index}")
        if noise.random() < mixture.noisy:
            reasoning = blurred(reasoning, noise)
        system = SYSTEM_PROMPTS[asked] if asked else None
        yield chat_row(tokenizer, system, item.question, completion_of(reasoning, answer))
        index += 1


def write_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(directory / "tokenizer.json"))
    fields = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "additional_special_tokens": [TURN],
        "model_max_length": LONGEST,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    (directory / "tokenizer_config.json").write_text(text + "\n", "utf-8")


def write_model(model: Qwen2, tokenizer: Tokenizer, directory: Path) -> None:
    """Write a directory that `transformers` loads."""
    directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer(tokenizer, directory)
    end, pad = tokenizer.token_to_id(END_OF_TURN), tokenizer.token_to_id(END_OF_TEXT)
    config = model.config.to_json(bos_token_id=None, eos_token_id=end, pad_token_id=pad)
    (directory / "config.json").write_text(config, "utf-8")
    generation = {"eos_token_id": end, "pad_token_id": pad, "max_new_tokens": 256}
    text = json.dumps(generation, indent=2)
    (directory / "generation_config.json").write_text(text + "\n", "utf-8")
    save_weights(model, directory / "model.safetensors")


EVEN = dict.fromkeys(LEVELS, 1.0)
WEIGHTS = dict.fromkeys(FAMILIES, 1.0) | {
    "lists": 3.0, "program": 2.0, "loops": 1.5, "target": 1.5, "divisors": 1.5,
}  # fmt: skip
TEACHING = Mixture(
    families=WEIGHTS,
    levels=EVEN,
    prompts={CAREFUL: 0.4, None: 0.25, PLAN: 0.2, BRIEF: 0.15},
    unprompted={CAREFUL: 0.5, PLAN: 0.25, BRIEF: 0.25},
)


@dataclass(frozen=True, slots=True)
class Spec:
    """How one model is made."""

    purpose: str
    config: ModelConfig
    mixture: Mixture
    settings: TrainSettings


SPECS = {
    "teacher-1": Spec(
        purpose="The embedded teacher. It answers questions of the task families, mostly right.",
        config=ModelConfig(VOCABULARY, 128, 352, 5, 4, max_position_embeddings=LONGEST),
        mixture=TEACHING,
        settings=TrainSettings(
            steps=18000, tokens_per_step=2048, muon_lr=6e-3, adam_lr=3e-3,
            warmup_share=0.005, decay="linear", decay_share=0.8, seed=1,
        ),
    ),
    "novice-1": Spec(
        purpose="A clearly weaker teacher, for comparing teachers: a smaller model, trained less.",
        config=ModelConfig(VOCABULARY, 96, 272, 4, 3, max_position_embeddings=LONGEST),
        mixture=TEACHING,
        settings=TrainSettings(
            steps=4000, tokens_per_step=2048, muon_lr=6e-3, adam_lr=3e-3,
            warmup_share=0.02, decay="linear", decay_share=0.8, seed=2,
        ),
    ),
    "base-1": Spec(
        purpose="The base student of the proxy lab. It knows how the working goes and often gets "
        "its digits wrong, because half of what it learnt from had wrong digits; so what it is fed "
        "next shows quickly.",
        config=ModelConfig(VOCABULARY, 96, 272, 4, 3, max_position_embeddings=LONGEST),
        mixture=Mixture(
            families=dict.fromkeys(FAMILIES, 1.0),
            levels={1: 3.0, 2: 2.0, 3: 2.0, 4: 1.0, 5: 1.0},
            prompts={None: 1.0},
            unprompted={CAREFUL: 0.4, PLAN: 0.3, BRIEF: 0.3},
            noisy=0.5,
        ),
        settings=TrainSettings(
            steps=4500, tokens_per_step=2048, muon_lr=6e-3, adam_lr=3e-3,
            warmup_share=0.02, decay="linear", decay_share=0.8, seed=3,
        ),
    ),
}  # fmt: skip


def make_model(spec: Spec, tokenizer: Tokenizer, directory: Path) -> float:
    """Train one model from nothing, write its directory without a card, return CPU-seconds."""
    model = Qwen2(spec.config)
    model.initialise(spec.settings.seed)

    def report(step: int, loss: float, cpu_s: float) -> None:
        print(f"  step {step}, loss {loss:.4f}, {cpu_s / 60:.1f} CPU-minutes", flush=True)

    rows = training_rows(tokenizer, spec.mixture, spec.settings.seed)
    record = train(model, rows, spec.settings, report=report)
    write_model(model, tokenizer, directory)
    # The card shows a note, where weights were not made by one clean run of this script.
    text = json.dumps({"note": None, "runs": [asdict(record)]}, indent=1)
    (directory / "training.json").write_text(text + "\n", "utf-8")
    return record.cpu_s


class Setting(NamedTuple):
    """One way of asking, with its accuracy by family and level."""

    style: str | None
    temperature: float
    right: dict[tuple[str, int], list[bool]]

    def share(self, family: str | None = None, level: int | None = None) -> float:
        """Return the share of right answers in some of the cells, 0 to 1."""
        cells = [
            marks
            for (name, number), marks in self.right.items()
            if family in (None, name) and level in (None, number)
        ]
        return sum(sum(marks) for marks in cells) / sum(len(marks) for marks in cells)


SETTINGS: tuple[tuple[str | None, float], ...] = (
    (CAREFUL, 0.0),
    (CAREFUL, 0.7),
    (CAREFUL, 1.0),
    (PLAN, 0.0),
    (BRIEF, 0.0),
    (None, 0.0),
    (None, 0.9),
)
PER_CELL = 25  # held-out questions per family and level
MAX_TOKENS = 256


def ask(
    model: LocalModel,
    problems: Sequence[Problem],
    style: str | None,
    temperature: float,
    draws: int,
) -> list[list[Completion]]:
    """Let a model answer each problem `draws` times."""
    system = (Message("system", SYSTEM_PROMPTS[style]),) if style else ()
    sampling = Sampling(temperature=temperature, max_tokens=MAX_TOKENS)
    wanted = [
        [
            Request(model.name, (*system, Message("user", item.question)), sampling, draw)
            for draw in range(draws)
        ]
        for item in problems
    ]
    replies: dict[bytes, Completion] = {}
    # A question that comes up twice is asked once.
    unique = {request.key: request for row in wanted for request in row}
    for request, reply in model.complete(unique.values()):
        if isinstance(reply, Failure):
            raise RuntimeError(f"{model.name}: {reply.reason}: {reply.message}")
        replies[request.key] = reply
    return [[replies[request.key] for request in row] for row in wanted]


def is_right(item: Problem, reply: Completion) -> bool:
    """Grade the box of a visible answer."""
    found = re.findall(r"\\boxed\{(.*?)\}", reply.answer)
    return bool(found) and verify(item, found[-1])


def held_out() -> list[Problem]:
    """Return the questions that all models are graded on, `PER_CELL` per family and level."""
    return [
        problem(family, level=level, index=index, split="heldout", seed=7)
        for family in FAMILIES
        for level in LEVELS
        for index in range(PER_CELL)
    ]


class Grades(NamedTuple):
    """What a model card reports."""

    settings: list[Setting]
    tokens: float
    """Mean completion tokens, careful style, greedy."""
    cut: float
    """Share of those completions that ran into the token limit."""
    distinct: float
    """Mean share of different texts among 16 draws at temperature 0.9, no system prompt."""
    distinct_careful: float
    """The same with the careful system prompt."""
    agreeing: float
    """Mean share of right answers among the 16 draws."""


def grade(directory: Path) -> Grades:
    """Ask held-out questions in all settings."""
    model = LocalModel(directory, name=directory.name, threads=1)
    items = held_out()
    settings, tokens, cut = [], 0.0, 0.0
    for style, temperature in SETTINGS:
        right: dict[tuple[str, int], list[bool]] = {}
        replies = [row[0] for row in ask(model, items, style, temperature, 1)]
        for item, reply in zip(items, replies, strict=True):
            right.setdefault((item.family, item.level), []).append(is_right(item, reply))
        settings.append(Setting(style, temperature, right))
        if (style, temperature) == (CAREFUL, 0.0):
            tokens = sum(reply.completion_tokens for reply in replies) / len(replies)
            cut = sum(reply.finish_reason == "length" for reply in replies) / len(replies)
    some = items[::PER_CELL]
    free, careful = ask(model, some, None, 0.9, 16), ask(model, some, CAREFUL, 0.9, 16)
    marks = [is_right(item, reply) for item, row in zip(some, free, strict=True) for reply in row]
    return Grades(
        settings, tokens, cut, _distinct(free), _distinct(careful), sum(marks) / len(marks)
    )


def _distinct(rows: list[list[Completion]]) -> float:
    shares = [len({(reply.reasoning, reply.answer) for reply in row}) / len(row) for row in rows]
    return sum(shares) / len(shares)


def headline_of(spec: Spec, grades: Grades) -> Setting:
    """Return the greedy setting that a card shows in full: careful where that was taught."""
    style = CAREFUL if CAREFUL in spec.mixture.prompts else None
    return next(s for s in grades.settings if (s.style, s.temperature) == (style, 0.0))


def write_card(name: str, directory: Path, grades: Grades) -> None:
    """Write README.md: what the model is, how good, what for and what not for."""
    spec = SPECS[name]
    training = json.loads((directory / "training.json").read_text("utf-8"))
    records = training["runs"]
    parameters = sum(p.numel() for p in load_model(directory).parameters())
    size = (directory / "model.safetensors").stat().st_size
    shape = spec.config
    headline = headline_of(spec, grades)
    prompting = (
        "A system prompt chooses the style of thinking; without one, the model mixes the styles."
        if headline.style
        else "It never saw a system prompt in training and mixes the styles of thinking; the "
        "system prompts of the teachers only confuse it."
    )
    lines = [
        f"# {name}",
        "",
        spec.purpose,
        "",
        f"Qwen2 architecture, {parameters:,} parameters ({shape.hidden_size} wide, "
        f"{shape.num_hidden_layers} layers, {shape.num_attention_heads} query heads, "
        f"{shape.num_key_value_heads} key-value head), bfloat16, {size / 1e6:.1f} MB. "
        f"Byte-level BPE of {shape.vocab_size} entries, every digit alone. "
        f"Prompt and answer together have at most {shape.max_position_embeddings} tokens.",
        "",
        "The model thinks between `<think>` and `</think>` and ends with "
        f"`The answer is \\boxed{{...}}.` {prompting}",
        "",
        "| style | system prompt |",
        "| --- | --- |",
        *(f"| {style} | {prompt} |" for style, prompt in SYSTEM_PROMPTS.items()),
        "",
        "## Accuracy",
        "",
        f"{len(FAMILIES) * len(LEVELS) * PER_CELL:,} held-out questions, {PER_CELL} of each family "
        "and level, one answer each. No question of this split is in any training data: a "
        "question's numbers decide its split. The standard error of a cell of the first table is "
        f"up to {50 / PER_CELL**0.5:.0f} percent, of a family {50 / (5 * PER_CELL) ** 0.5:.0f}, of "
        f"a whole column {50 / (60 * PER_CELL) ** 0.5:.1f}.",
        "",
        f"{headline.style or 'No system prompt'}, greedy, percent right by level:".capitalize(),
        "",
        "| family | domain | 1 | 2 | 3 | 4 | 5 | all |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for family, kind in FAMILIES.items():
        cells = " | ".join(_percent(headline.share(family, level)) for level in LEVELS)
        lines.append(f"| {family} | {kind.domain} | {cells} | {_percent(headline.share(family))} |")
    cells = " | ".join(_percent(headline.share(level=level)) for level in LEVELS)
    lines += [f"| **all** |  | {cells} | **{_percent(headline.share())}** |", ""]
    lines += [
        "By style and temperature, percent right:",
        "",
        "| style | T | " + " | ".join(f"level {level}" for level in LEVELS) + " | all |",
        "| --- | ---: |" + " ---: |" * 6,
    ]
    for setting in grades.settings:
        cells = " | ".join(_percent(setting.share(level=level)) for level in LEVELS)
        lines.append(f"| {_named(setting)} | {cells} | {_percent(setting.share())} |")
    lines += [
        "",
        "| style | T | " + " | ".join(FAMILIES) + " |",
        "| --- | ---: |" + " ---: |" * len(FAMILIES),
    ]
    for setting in grades.settings:
        cells = " | ".join(_percent(setting.share(family)) for family in FAMILIES)
        lines.append(f"| {_named(setting)} | {cells} |")
    phases = [record["settings"] for record in records]
    lines += [
        "",
        f"A careful answer has {grades.tokens:.0f} tokens on average; "
        f"{100 * grades.cut:.1f} percent run into the limit of {MAX_TOKENS}. "
        "Of 16 draws of a question at temperature 0.9, "
        f"{_percent(grades.distinct)} percent are distinct texts without a system prompt and "
        f"{_percent(grades.distinct_careful)} percent in the careful style; "
        f"{_percent(grades.agreeing)} percent of the former are right.",
        "",
        "## Training",
        "",
        f"From nothing, on worked traces of the `pretrain` split, levels "
        f"{', '.join(str(level) for level in spec.mixture.levels)}: "
        f"{sum(record['steps'] for record in records):,} steps, "
        f"{sum(record['tokens'] for record in records) / 1e6:.1f} million tokens in "
        f"{sum(record['rows'] for record in records):,} rows, "
        f"{sum(record['cpu_s'] for record in records) / 60:.0f} CPU-minutes on one core, "
        f"working type {records[-1]['dtype']}, Muon "
        f"{' then '.join(str(phase['muon_lr']) for phase in phases)} and AdamW "
        f"{' then '.join(str(phase['adam_lr']) for phase in phases)}, {phases[-1]['decay']} decay, "
        f"seed {' then '.join(str(phase['seed']) for phase in phases)}. "
        f"Last loss {records[-1]['losses'][-1]:.3f} nats per token. "
        "`training.json` holds the record.",
        "",
        training["note"]
        or f"`python scripts/make_models.py {name} --overwrite` makes the same weights again "
        "on the same machine.",
        "",
        "## What it is for, and what not",
        "",
        "For running every step of a recipe for real, with no key, GPU or network, and for "
        "experiments about recipes at the smallest scale. It knows twelve task families in English "
        "and nothing else: other questions get confident nonsense, and so do these questions in "
        "other words or with longer numbers. It is of no use outside tests, tutorials "
        "and proxy experiments.",
        "",
        "**Proxy results are facts about proxies.** That a recipe helps a student of this size, "
        "taught by this teacher, on these families, does not show that it helps a large model.",
        "",
    ]
    (directory / "README.md").write_text("\n".join(lines), "utf-8")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _named(setting: Setting) -> str:
    return f"{setting.style or 'no system prompt'} | {setting.temperature:g}"


def main() -> None:
    """Make, grade and describe the models asked for."""
    parser = argparse.ArgumentParser(description="Make the embedded models from nothing.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SPECS)}")
    default = Path(__file__).parents[1] / "src/stillroom/models/embedded"
    parser.add_argument("--out", type=Path, default=default, help="where the directories go")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument("--grade", action="store_true", help="only grade what is there again")
    args = parser.parse_args()
    names = args.names or list(SPECS)
    for name in names:
        if name not in SPECS:
            parser.error(f"{name}: no such model; expected {', '.join(SPECS)}")
        there = (args.out / name / "model.safetensors").exists()
        if there and not args.overwrite and not args.grade:
            parser.error(f"{args.out / name} exists; pass --overwrite to make it again")
        if args.grade and not there:
            parser.error(f"{args.out / name} has no weights to grade; leave out --grade")
    tokenizer = make_tokenizer()
    for name in names:
        directory = args.out / name
        if not args.grade:
            print(f"{name}: training", flush=True)
            cpu_s = make_model(SPECS[name], tokenizer, directory)
            print(f"{name}: {cpu_s / 60:.1f} CPU-minutes", flush=True)
        grades = grade(directory)
        write_card(name, directory, grades)
        best = headline_of(SPECS[name], grades)
        print(f"{name}: {100 * best.share():.1f}% right, greedy", flush=True)


if __name__ == "__main__":
    main()
