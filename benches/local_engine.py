"""Tokens per second of the local engine beside transformers and CTranslate2.

All engines run the same model, prompts and settings: temperature 1, whole distribution, exactly
``--tokens`` tokens a completion (end tokens do not stop), float32, one thread, batches of the size
that suits each. Then the job that the engine was built for: 1,000 questions with 16 draws each, on
all cores, stopping where the model stops.

    python benches/local_engine.py
    python benches/local_engine.py --model DIR --questions 1000

A rival that is not installed is left out. CTranslate2 makes no promise that a draw has the same
text in another batch; the local engine's text is the same in any batch, on any machine.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.local import LocalModel

TEACHER = Path(__file__).parents[1] / "src/stillroom/models/embedded/teacher-1"
DRAWS = 16


def questions(n: int) -> list[str]:
    rng = random.Random(f"benches/{n}")
    return [
        f"What is {rng.randrange(1000)} + {rng.randrange(1000)} - {rng.randrange(1000)}?"
        for _ in range(n)
    ]


def ask(texts: list[str], tokens: int | None) -> Iterator[Request]:
    for text in texts:
        for draw in range(DRAWS):
            yield Request("teacher", (Message("user", text),), Sampling(1.0, 1.0, tokens), draw)


def seconds(work: Callable[[], int]) -> tuple[float, float, int]:
    """Run once; return wall seconds, processor seconds and tokens."""
    wall, processor = time.perf_counter(), time.process_time()
    tokens = work()
    return time.perf_counter() - wall, time.process_time() - processor, tokens


def local(directory: Path, texts: list[str], tokens: int, *, kernels: str | None = None) -> int:
    model = LocalModel(directory, name="teacher", threads=1, kernels=kernels)
    model.checkpoint.ends = ()
    replies = [reply for _, reply in model.complete(ask(texts, tokens))]
    return sum(r.completion_tokens for r in replies if isinstance(r, Completion))


def prompts(directory: Path, texts: list[str]) -> list[list[int]]:
    checkpoint = LocalModel(directory, name="teacher", threads=1).checkpoint
    return [
        list(checkpoint.prompt((Message("user", text),)).tokens)
        for text in texts
        for _ in range(DRAWS)
    ]


def transformers(directory: Path, texts: list[str], tokens: int, *, batch: int) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    rows = prompts(directory, texts)
    drawn = 0
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        width = max(map(len, part))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in part])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in part])
        with torch.no_grad():
            out = model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=tokens,
                eos_token_id=None,
                pad_token_id=0,
            )
        drawn += (out.shape[1] - width) * len(part)
    return drawn


def ctranslate2(
    directory: Path, converted: Path, texts: list[str], tokens: int, *, batch: int
) -> int:
    import ctranslate2 as rival
    from tokenizers import Tokenizer

    generator = rival.Generator(
        str(converted), device="cpu", compute_type="float32", intra_threads=1
    )
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    rows = [[tokenizer.id_to_token(i) for i in row] for row in prompts(directory, texts)]
    results = generator.generate_batch(
        rows,
        max_batch_size=batch,
        max_length=tokens,
        min_length=tokens,
        sampling_topk=0,
        sampling_temperature=1.0,
        include_prompt_in_result=False,
    )
    return sum(len(result.sequences_ids[0]) for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=TEACHER)
    parser.add_argument("--questions", type=int, default=1000, help="questions of the large job")
    parser.add_argument("--tokens", type=int, default=100, help="tokens a completion when racing")
    parser.add_argument("--race", type=int, default=40, help="questions when racing")
    options = parser.parse_args()
    texts = questions(options.race)

    def few(batch: int) -> list[str]:
        # Slow rivals draw fewer questions: their rate does not depend on how many batches follow.
        return texts[: max(1, batch // DRAWS)]

    races: dict[str, tuple[Callable[[list[str], int], int], list[str]]] = {
        "local": (partial(local, options.model), texts)
    }
    for batch in (64, 256):
        rival = partial(transformers, options.model, batch=batch)
        races[f"transformers, batch {batch}"] = (rival, few(batch))
    with tempfile.TemporaryDirectory() as scratch:
        converted = Path(scratch) / "converted"
        try:
            from ctranslate2.converters import TransformersConverter

            TransformersConverter(str(options.model)).convert(str(converted))
        except ImportError:
            print("CTranslate2 is not installed: left out")
        else:
            for batch in (32, 64):
                rival = partial(ctranslate2, options.model, converted, batch=batch)
                races[f"ctranslate2, batch {batch}"] = (rival, texts)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; one thread each")
        print(
            f"{'engine':26}{'tokens':>9}{'wall s':>9}{'cpu s':>9}{'tokens/cpu s':>14}{'ratio':>8}"
        )
        own = 0.0
        for name, (race, asked) in races.items():
            try:
                race(asked[:1], 2)  # imports and first uses are not what is measured
                wall, processor, tokens = seconds(partial(race, asked, options.tokens))
            except ImportError as error:
                print(f"{name:26}  left out: {error}")
                continue
            rate = tokens / processor
            own = own or rate
            print(f"{name:26}{tokens:9,}{wall:9.2f}{processor:9.2f}{rate:14,.0f}{own / rate:7.1f}x")

    model = LocalModel(options.model, name="teacher")
    finished: dict[str, int] = {}

    def job() -> int:
        drawn = 0
        for _, reply in model.complete(ask(questions(options.questions), 300)):
            assert isinstance(reply, Completion)
            drawn += reply.completion_tokens
            finished[reply.finish_reason] = finished.get(reply.finish_reason, 0) + 1
        return drawn

    wall, processor, tokens = seconds(job)
    print(
        f"\n{options.questions:,} questions x {DRAWS} draws on {model.threads} threads: "
        f"{wall:.1f} s wall, {processor:.1f} s cpu, {tokens:,} tokens ({tokens / wall:,.0f}/s), "
        f"ends {finished}"
    )


if __name__ == "__main__":
    main()
