"""The local engine: right numbers, the same text in any company, honest ends."""

import itertools
import math
import struct
from array import array
from collections import Counter

import pytest
from tests.tiny_checkpoints import END, SMALL, TEMPLATE, VOCAB, random_tensors, write_checkpoint
from tests.tiny_checkpoints import write_safetensors as write_weights

from stillroom.models.chat import Completion, Failure, Message, Request, Sampling
from stillroom.models.local import LocalModel, _engine
from stillroom.models.local.engine import STOP


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(directory):
    return LocalModel(directory, name="tiny", threads=2, slots=8)


def ask(text="What is 2+2?", draw=0, **sampling):
    return Request("tiny", (Message("user", text),), Sampling(**sampling), draw)


def replies(model, requests):
    return dict(model.complete(requests))


def logits(model, tokens):
    data = model.checkpoint.model.logits(array("i", tokens))
    rows = struct.iter_unpack(f"<{VOCAB}f", data)
    return [list(row) for row in rows]


def drawn(model, tokens, n=1, *, limit=1, temperature=1.0, top_p=1.0):
    """Token lists of n draws of the same prompt."""
    engine = model.start()
    try:
        for i in range(n):
            key = i.to_bytes(16, "little")
            engine.submit(
                i,
                array("i", tokens),
                key,
                temperature=temperature,
                top_p=top_p,
                limit=limit,
                stream=False,
            )
        out = {}
        while len(out) < n:
            out |= {i: tokens for i, tokens, _ in engine.take(1.0)}
        return [out[i] for i in range(n)]
    finally:
        engine.close()


# ---- the same text, whatever the company ---------------------------------------------------------


def crowd():
    """Requests of mixed lengths and settings; many share beginnings of many lengths."""
    return [
        ask(f"What is {'1+' * (q * 3)}{q}?", draw, max_tokens=5 + 7 * q, **sampling)
        for q in range(6)
        for draw in range(3)
        for sampling in (
            {"temperature": 0.0},
            {"temperature": 1.0},
            {"temperature": 0.8, "top_p": 0.9},
        )
    ]


@pytest.fixture(scope="module")
def alone(directory):
    one = LocalModel(directory, name="tiny", threads=1, slots=1)
    return {request: replies(one, [request])[request] for request in crowd()}


@pytest.mark.parametrize(("threads", "slots"), [(1, 2), (1, 64), (2, 3), (3, 16)])
def test_complete_in_a_crowd_gives_the_text_of_each_alone(directory, alone, threads, slots):
    crowded = LocalModel(directory, name="tiny", threads=threads, slots=slots)
    for requests in (crowd(), crowd()[::-1], crowd()[::2] + crowd()[1::2]):
        assert replies(crowded, requests) == alone


def test_complete_with_little_memory_for_keys_gives_the_same_text(directory, alone):
    poor = LocalModel(directory, name="tiny", threads=2, slots=8, cache_bytes=1)
    assert replies(poor, crowd()) == alone


@pytest.mark.parametrize("kernels", _engine.supported())
def test_kernels_of_every_processor_give_the_same_text(directory, alone, kernels):
    other = LocalModel(directory, name="tiny", threads=1, slots=5, kernels=kernels)
    assert replies(other, crowd()) == alone


@pytest.mark.parametrize("changes", [{"head_dim": 20}, {"num_attention_heads": 6, "head_dim": 16}])
def test_kernels_agree_on_odd_shapes(tmp_path, changes):
    write_checkpoint(tmp_path, **changes)
    tokens = array("i", range(3, 150))
    models = [LocalModel(tmp_path, name="tiny", kernels=kernels) for kernels in _engine.supported()]
    assert len({model.checkpoint.model.logits(tokens) for model in models}) == 1


def test_complete_again_after_an_interruption_gives_the_same_text(model, alone):
    interrupted = model.complete(crowd())
    for _ in range(5):
        next(interrupted)
    interrupted.close()
    assert replies(model, crowd()) == alone


def test_two_iterators_of_one_model_do_not_disturb_each_other(model, alone):
    both = zip(model.complete(crowd()), model.complete(crowd()[::-1]), strict=True)
    first, second = (dict(pairs) for pairs in zip(*both, strict=True))
    assert first == alone
    assert second == alone


def test_draws_of_one_question_differ(model):
    texts = {
        reply.answer
        for reply in replies(model, [ask(draw=i, max_tokens=20) for i in range(16)]).values()
    }
    assert len(texts) == 16


# ---- sampling ------------------------------------------------------------------------------------

PROMPT = [5, 9, 77, 140, 33]


def softmax(row, temperature=1.0):
    top = max(row)
    weights = [math.exp((x - top) / temperature) for x in row]
    return [w / sum(weights) for w in weights]


def chi_square(counts, shares, n):
    """The statistic minus its expectation, in its standard deviations; rare tokens pooled."""
    cells, rest_seen, rest_expected = [], 0, 0.0
    for token, share in enumerate(shares):
        if share * n < 5:
            rest_seen += counts[token]
            rest_expected += share * n
        else:
            cells.append((counts[token], share * n))
    if rest_expected >= 1:
        cells.append((rest_seen, rest_expected))
    freedom = len(cells) - 1
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(model, temperature):
    n = 4000
    counts = Counter(t for (t,) in drawn(model, PROMPT, n, temperature=temperature))
    shares = softmax(logits(model, PROMPT)[-1], temperature)
    assert abs(chi_square(counts, shares, n)) < 4


def test_top_p_keeps_the_shortest_list_that_reaches_it(model):
    n, top_p = 4000, 0.7
    shares = softmax(logits(model, PROMPT)[-1])
    nucleus, reached = [], 0.0
    for token in sorted(range(VOCAB), key=lambda t: -shares[t]):
        nucleus.append(token)
        reached += shares[token]
        if reached >= top_p:
            break
    counts = Counter(t for (t,) in drawn(model, PROMPT, n, top_p=top_p))
    assert set(counts) <= set(nucleus)
    kept = [shares[t] / reached if t in nucleus else 0.0 for t in range(VOCAB)]
    assert abs(chi_square(counts, kept, n)) < 4


def test_tiny_top_p_is_greedy(model):
    best = max(range(VOCAB), key=logits(model, PROMPT)[-1].__getitem__)
    assert set(itertools.chain(*drawn(model, PROMPT, 50, top_p=1e-9))) == {best}


def test_greedy_takes_the_likeliest_token_at_each_step(model):
    (tokens,) = drawn(model, PROMPT, limit=30, temperature=0.0)
    rows = logits(model, PROMPT + tokens)
    for i, token in enumerate(tokens):
        row = rows[len(PROMPT) - 1 + i]
        assert row[token] == max(row)


def test_greedy_tie_goes_to_the_lowest_id(tmp_path):
    write_checkpoint(tmp_path)
    flat = {name: (shape, [0.0] * len(x)) for name, (shape, x) in random_tensors(SMALL).items()}
    write_weights(tmp_path / "model.safetensors", flat)
    flat_model = LocalModel(tmp_path, name="flat", threads=1)
    assert drawn(flat_model, PROMPT, limit=3, temperature=0.0) == [[0, 0, 0]]


# ---- ends ----------------------------------------------------------------------------------------


def test_max_tokens_ends_with_length(model):
    reply = replies(model, [ask(max_tokens=7, temperature=0.0)]).popitem()[1]
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 7)


def test_end_token_ends_with_stop_and_counts_as_drawn(tmp_path, model):
    request = ask(temperature=0.0, max_tokens=60)
    prompt = model.prepare(request).prompt.tokens
    (tokens,) = drawn(model, prompt, limit=60, temperature=0.0)
    end = tokens[9]
    write_checkpoint(tmp_path, eos_token_id=end)
    stopping = LocalModel(tmp_path, name="tiny", threads=1)
    reply = replies(stopping, [request])[request]
    assert reply.finish_reason == "stop"
    assert reply.completion_tokens == tokens.index(end) + 1


def test_end_tokens_are_those_of_all_three_files(tmp_path):
    write_checkpoint(tmp_path, eos_token_id=7)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [9, 11]}')
    assert LocalModel(tmp_path, name="tiny").checkpoint.ends == (7, 9, 11, END)


def test_without_max_tokens_the_context_is_the_limit(tmp_path):
    write_checkpoint(tmp_path, eos_token_id=None)
    endless = LocalModel(tmp_path, name="tiny", threads=1)
    endless.checkpoint.ends = ()
    reply = replies(endless, [ask()]).popitem()[1]
    assert reply.finish_reason == "length"
    assert reply.prompt_tokens + reply.completion_tokens == SMALL["max_position_embeddings"]


def test_prompt_that_is_too_long_fails_alone(model):
    long, short = ask("x" * 300), ask(max_tokens=3)
    out = replies(model, [long, short])
    assert isinstance(out[long], Failure)
    assert out[long].reason == "too_long"
    assert "tiny reads at most 255" in out[long].message
    assert isinstance(out[short], Completion)


@pytest.mark.parametrize(
    "sampling",
    [{"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"max_tokens": 0}],
)
def test_sampling_out_of_range_is_refused(model, sampling):
    request = ask(**sampling)
    assert replies(model, [request])[request].reason == "refused"


@pytest.mark.parametrize(
    "text", ["", " ", "🙂🏳️‍🌈", "\0\x7f", "é\u0301", "\ud83d", "<|im_end|><think>"]
)
def test_any_text_is_a_prompt(model, text):
    reply = replies(model, [ask(text, max_tokens=4)]).popitem()[1]
    assert isinstance(reply, Completion)
    reply.answer.encode()


def test_template_that_raises_fails_one_request(tmp_path):
    template = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    write_checkpoint(tmp_path, template=template + TEMPLATE)
    strict = LocalModel(tmp_path, name="tiny", threads=1)
    bad = Request("tiny", (Message("assistant", "hi"),), Sampling(max_tokens=2))
    out = replies(strict, [bad, ask(max_tokens=2)])
    assert out[bad] == Failure("refused", "the chat template refuses this conversation: user first")
    assert isinstance(out[ask(max_tokens=2)], Completion)


def test_template_that_renders_nothing_is_refused(tmp_path):
    write_checkpoint(tmp_path, template="{# nothing #}")
    silent = LocalModel(tmp_path, name="tiny", threads=1)
    assert replies(silent, [ask()]).popitem()[1].reason == "refused"


# ---- thinking ------------------------------------------------------------------------------------


def encoded(model, text):
    return model.checkpoint._tokenizer.encode(text).ids


def test_finish_splits_thinking_and_drops_end_tokens(model):
    tokens = encoded(model, "<think>2+2=4</think>\nAnswer: 4<|im_end|>")
    reply = model.finish(model.prepare(ask()), tokens, STOP)
    assert (reply.reasoning, reply.answer) == ("2+2=4", "Answer: 4")
    assert reply.completion_tokens == len(tokens)


def test_template_that_opens_the_thinking_is_seen(tmp_path):
    write_checkpoint(tmp_path, template=TEMPLATE[: -len("{% endif %}")] + "<think>\n{% endif %}")
    thinking = LocalModel(tmp_path, name="tiny", threads=1)
    reply = replies(thinking, [ask(max_tokens=5)]).popitem()[1]
    assert reply.reasoning is not None
    assert reply.answer == ""


def test_decoder_pieces_make_the_whole_text(model):
    text = "é🙂 <think>a b</think> 🏳️‍🌈\n" * 20 + "<|im_end|>"
    tokens = encoded(model, text)
    decoder = model.checkpoint.decoder()
    pieces = [decoder.push([token]) for token in tokens] + [decoder.push([], last=True)]
    assert "".join(pieces) == model.checkpoint.text(tokens)
    assert max(map(len, pieces)) <= len("</think>")


# ---- the door ------------------------------------------------------------------------------------


def test_complete_pulls_only_as_fast_as_it_works(directory):
    small = LocalModel(directory, name="tiny", threads=2, slots=3)
    pulled = itertools.count()
    endless = (ask(draw=next(pulled), max_tokens=2) for _ in itertools.repeat(None))
    out = small.complete(endless)
    for _ in range(10):
        next(out)
    out.close()
    assert next(pulled) <= 10 + 2 * 2 * 3


def test_complete_passes_on_an_error_of_the_requests(model):
    def failing():
        yield ask(max_tokens=2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(model.complete(failing()))


def test_complete_of_nothing_is_nothing(model):
    assert list(model.complete([])) == []


def test_equal_requests_are_each_replied_to(model):
    out = list(model.complete([ask(max_tokens=3)] * 5))
    assert len(out) == 5
    assert len({reply for _, reply in out}) == 1


# ---- the C engine refuses what Python should have caught -----------------------------------------


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, [VOCAB]),
        ({}, [-1]),
        ({}, []),
        ({}, [1] * 256),
        ({"limit": 0}, [1]),
        ({"limit": 256}, [1]),
        ({"temperature": -1.0}, [1]),
        ({"temperature": math.nan}, [1]),
        ({"top_p": 0.0}, [1]),
        ({"top_p": math.nan}, [1]),
        ({"key": b"short"}, [1]),
    ],
)
def test_submit_refuses_bad_jobs(model, changes, tokens):
    engine = model.start()
    settings = {"temperature": 1.0, "top_p": 1.0, "limit": 5, "stream": False}
    settings |= {"key": bytes(16)} | changes
    with pytest.raises(ValueError, match=r".+"):
        engine.submit(0, array("i", tokens), settings.pop("key"), **settings)
    engine.close()


def test_cancelled_job_sends_nothing(model):
    engine = model.start()
    settings = {"temperature": 1.0, "top_p": 1.0, "stream": False}
    for i in range(100):
        engine.submit(i, array("i", PROMPT), bytes(16), limit=200, **settings)
    for i in range(100):
        if i != 60:
            engine.cancel(i)
    seen = []
    while not any(number == 60 for number, _, _ in seen):
        seen += engine.take(1.0)
    engine.close()
    assert len(seen) < 100


def test_model_with_missing_tensors_cannot_run():
    small = _engine.Model(
        vocab=8,
        dim=4,
        layers=1,
        heads=1,
        kv_heads=1,
        head_dim=4,
        ff=4,
        context=8,
        frequencies=[1.0, 0.1],
        eps=0.0,
        qkv_bias=False,
        qk_norm=False,
        tied=True,
    )
    with pytest.raises(ValueError, match="not all tensors"):
        small.logits(array("i", [1]))
    with pytest.raises(ValueError, match="bytes"):
        small.load("norm", -1, "F32", bytes(12))
    with pytest.raises(ValueError, match="no tensor"):
        small.load("q", 1, "F32", bytes(64))


# ---- against the reference implementation --------------------------------------------------------

FAMILIES = {
    "qwen2": {},
    "qwen2 with three heads to a key": {"num_attention_heads": 6, "head_dim": 16},
    "qwen2 with one key head": {"num_key_value_heads": 1},
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "tie_word_embeddings": False,
    },
    "llama with scaled rotations": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": 20,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "llama with linear rotations": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 24},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_greedy_tokens_equal_transformers(tmp_path, family):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    changes = FAMILIES[family]
    if changes.get("model_type", "qwen2") == "qwen2" and "head_dim" in changes:
        changes = changes | {"hidden_size": 96}  # Qwen2 derives head_dim in the reference
    write_checkpoint(tmp_path, **changes)
    mine = LocalModel(tmp_path, name="tiny", threads=1)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = [(17 * i + i * i) % 255 for i in range(200)]
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0]
        (greedy,) = theirs.generate(
            torch.tensor([tokens[:40]]),
            attention_mask=torch.ones(1, 40, dtype=torch.long),
            do_sample=False,
            max_new_tokens=60,
            eos_token_id=None,
            pad_token_id=0,
        )[:, 40:].tolist()
    assert (torch.tensor(logits(mine, tokens)) - expected).abs().max() < 2e-4
    mine.checkpoint.ends = ()
    assert drawn(mine, tokens[:40], limit=60, temperature=0.0) == [greedy]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_text_does_not_depend_on_denormals_of_the_host(model, alone):
    torch = pytest.importorskip("torch")
    torch.set_flush_denormal(True)
    try:
        assert replies(model, crowd()) == alone
    finally:
        torch.set_flush_denormal(False)
