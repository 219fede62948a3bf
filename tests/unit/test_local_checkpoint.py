"""Reading model directories: what is whole is read, what is not gets one clear message."""

import json
import math
import struct
from array import array
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tiny_checkpoints import (
    SMALL,
    TEMPLATE,
    encode,
    random_tensors,
    write_checkpoint,
    write_safetensors,
)

from stillroom.errors import ModelError
from stillroom.models.chat import Failure, Message, Request, Sampling
from stillroom.models.local import LocalModel
from stillroom.models.local.checkpoint import Checkpoint
from stillroom.models.local.safetensors import read_header

TOKENS = array("i", range(60))


def logits(directory):
    return Checkpoint(directory).model.logits(TOKENS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("plain"))


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_narrow_weights_are_read_exactly(tmp_path, dtype):
    narrow = write_checkpoint(tmp_path / "narrow", dtype=dtype)
    tensors = random_tensors(SMALL)
    for name, (shape, numbers) in tensors.items():
        data = encode(numbers, dtype)
        if dtype == "F16":
            rounded = struct.unpack(f"<{len(numbers)}e", data)
        else:
            wide = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
            rounded = struct.unpack(f"<{len(numbers)}f", wide)
        tensors[name] = (shape, rounded)
    wide_directory = write_checkpoint(tmp_path / "wide")
    write_safetensors(wide_directory / "model.safetensors", tensors)
    assert logits(narrow) == logits(wide_directory)


def test_small_float16_numbers_are_read_exactly(tmp_path):
    write_checkpoint(tmp_path / "a", dtype="F16")
    write_checkpoint(tmp_path / "b")
    tiny = [2.0**-24, -(2.0**-24), 2.0**-14 - 2.0**-24, -0.0]
    tensors = {
        name: (shape, [tiny[i % 4] for i in range(len(x))])
        for name, (shape, x) in random_tensors(SMALL).items()
    }
    write_safetensors(tmp_path / "a/model.safetensors", tensors, "F16")
    write_safetensors(tmp_path / "b/model.safetensors", tensors)
    assert logits(tmp_path / "a") == logits(tmp_path / "b")


def shard(directory):
    tensors = random_tensors(SMALL)
    names = sorted(tensors)
    (directory / "model.safetensors").unlink()
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in files.items():
        write_safetensors(directory / file, {name: tensors[name] for name in part})
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_read_like_one_file(tmp_path, plain):
    write_checkpoint(tmp_path)
    shard(tmp_path)
    assert logits(tmp_path) == logits(plain)


def test_shard_outside_the_directory_is_refused(tmp_path):
    write_checkpoint(tmp_path)
    shard(tmp_path)
    index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="outside the directory"):
        Checkpoint(tmp_path)


def test_tied_head_follows_the_weights_when_the_config_is_silent(tmp_path):
    write_checkpoint(tmp_path, tie_word_embeddings=False)
    config = json.loads((tmp_path / "config.json").read_text())
    untied = logits(tmp_path)
    del config["tie_word_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert logits(tmp_path) == untied


# ---- what is not whole ---------------------------------------------------------------------------


def remove(name):
    return lambda directory: (directory / name).unlink()


def truncate(name, share):
    def change(directory):
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[: int(len(data) * share)])

    return change


def write(name, text):
    return lambda directory: (directory / name).write_bytes(text)


def config(**changes):
    def change(directory):
        (directory / "config.json").write_text(json.dumps(SMALL | changes))

    return change


def weights(**changes):
    def change(directory):
        tensors = random_tensors(SMALL)
        for name, value in changes.items():
            name = name.replace("__", ".")
            if value is None:
                del tensors[name]
            else:
                tensors[name] = value
        write_safetensors(directory / "model.safetensors", tensors)

    return change


def no_template(directory):
    settings_ = json.loads((directory / "tokenizer_config.json").read_text())
    del settings_["chat_template"]
    (directory / "tokenizer_config.json").write_text(json.dumps(settings_))


BROKEN = {
    "no config": (remove("config.json"), "config.json: no such file"),
    "config is no JSON": (write("config.json", b"{"), "config.json: not JSON"),
    "config is a list": (write("config.json", b"[]"), "holds a list"),
    "no weights": (remove("model.safetensors"), "no model.safetensors"),
    "no tokenizer": (remove("tokenizer.json"), "tokenizer.json: no such file"),
    "tokenizer is no tokenizer": (write("tokenizer.json", b"{}"), "not a tokenizer"),
    "no template": (no_template, "no chat template"),
    "template in another encoding": (write("chat_template.jinja", b"\xff"), "not UTF-8"),
    "theta out of reach": (config(rope_theta=10**400), "rope_theta is 1000"),
    "broken template": (write("chat_template.jinja", b"{% if %}"), "does not compile"),
    "empty weights": (truncate("model.safetensors", 0), "header of 0 bytes in a file of 0"),
    "half a header": (truncate("model.safetensors", 0.01), "header of"),
    "half the weights": (truncate("model.safetensors", 0.5), "ends at byte"),
    "weights of another kind": (write("model.safetensors", b"PK" * 500), "header of"),
    "header is no JSON": (
        write("model.safetensors", (9).to_bytes(8, "little") + b"no header"),
        "header is not JSON",
    ),
    "header is a list": (
        write("model.safetensors", (2).to_bytes(8, "little") + b"[]"),
        "not a JSON object",
    ),
    "missing tensor": (weights(model__norm__weight=None), "model.norm.weight is missing"),
    "wrong shape": (
        weights(model__norm__weight=((47,), [1.0] * 47)),
        r"shape \(47,\); expected \(48,\)",
    ),
    "NaN": (weights(model__norm__weight=((48,), [math.nan] * 48)), "holds NaN or infinity"),
    "infinity": (weights(model__norm__weight=((48,), [math.inf] * 48)), "holds NaN or infinity"),
    "architecture": (config(architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel"),
    "no architecture": (config(architectures=[]), "architectures is"),
    "activation": (config(hidden_act="gelu"), "hidden_act is 'gelu'"),
    "sliding window": (config(use_sliding_window=True), "use_sliding_window is True"),
    "layer kinds": (config(layer_types=["sliding_attention"] * 2), "layer_types"),
    "quantised": (config(quantization_config={"bits": 4}), "quantization_config"),
    "rotations": (config(rope_scaling={"rope_type": "yarn", "factor": 4.0}), "'yarn'"),
    "rotations without a factor": (config(rope_scaling={"type": "linear"}), "rope factor is None"),
    "theta": (config(rope_theta=-1), "rope_theta is -1"),
    "heads": (config(num_key_value_heads=3), "a divisor of 4"),
    "odd head": (config(head_dim=13), "an even number"),
    "no layers": (config(num_hidden_layers=0), "num_hidden_layers is 0"),
    "size as text": (config(hidden_size="48"), "hidden_size is '48'"),
    "size as truth": (config(hidden_size=True), "hidden_size is True"),
    "negative size": (config(intermediate_size=-80), "intermediate_size is -80"),
    "huge size": (config(hidden_size=1 << 40), "hidden_size is 1099511627776"),
    "size that the weights lack": (config(hidden_size=1024), "has shape"),
    "small vocabulary": (config(vocab_size=100), "ids below vocab_size, 100"),
    "epsilon": (config(rms_norm_eps="no"), "rms_norm_eps is 'no'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_directory_gets_one_clear_message(tmp_path, case):
    change, expected = BROKEN[case]
    write_checkpoint(tmp_path)
    change(tmp_path)
    with pytest.raises(ModelError, match=expected) as caught:
        Checkpoint(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path))
    assert "; expected " in message
    assert message.endswith(".")


def test_missing_directory_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere: no such directory"):
        LocalModel(tmp_path / "nowhere", name="x")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": 4, "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]},
    ],
)
def test_malformed_header_entry_is_refused(tmp_path, entry):
    text = json.dumps({"a": entry}).encode()
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(ModelError, match="malformed"):
        read_header(tmp_path / "x")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.floats(0.2, 1))
def test_damaged_weights_are_refused_or_read(plain, tmp_path, at, byte, cut):
    data = bytearray((plain / "model.safetensors").read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[int(at * header)] = byte
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((plain / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(data[: int(cut * len(data)) + 1])
    with suppress(ModelError):
        assert len(logits(tmp_path)) == len(TOKENS) * SMALL["vocab_size"] * 4


# ---- templates -----------------------------------------------------------------------------------

TALK = (
    Message("system", " Be <careful>. "),
    Message("user", 'Say "é" & 🙂\nplease'),
    Message("assistant", "é"),
    Message("user", ""),
)

TEMPLATES = {
    "plain": TEMPLATE,
    "blocks and loops": """
{%- for message in messages %}
    {%- if loop.first and message['role'] != 'system' %}
        {{- '<|im_start|>system\\n<|im_end|>' }}
    {%- endif %}
    {%- if message.role == 'assistant' %}
        {%- generation %}
        {{- message.content | trim }}
        {%- endgeneration %}
        {%- continue %}
    {%- endif %}
    {{- message | tojson }}
  {{ message.content.strip() }}
{%- endfor %}
  {% if add_generation_prompt %}
{{ eos_token }}{{ bos_token }}<|im_start|>assistant
  {% endif %}
""",
    "absent names": "{{ tools }}{{ messages[0].content | tojson(indent=2) }}{{ nobody }}",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", TEMPLATES)
def test_prompts_equal_those_of_transformers(tmp_path, case):
    transformers = pytest.importorskip("transformers")
    write_checkpoint(tmp_path, template=TEMPLATES[case])
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    theirs = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in TALK],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    assert list(Checkpoint(tmp_path).prompt(TALK).tokens) == list(theirs)


def test_template_in_its_own_file_comes_first(tmp_path):
    write_checkpoint(tmp_path, template="config")
    (tmp_path / "chat_template.jinja").write_text("own file")
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.text(list(checkpoint.prompt(TALK).tokens)) == "own file"


def test_template_named_default_is_taken_from_a_list(tmp_path):
    named = [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]
    write_checkpoint(tmp_path, template=named)
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.text(list(checkpoint.prompt(TALK).tokens)) == "yes"


def test_template_does_not_depend_on_the_day(tmp_path):
    source = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}fixed{% endif %}"
    write_checkpoint(tmp_path, template=source)
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.text(list(checkpoint.prompt(TALK).tokens)) == "fixed"


def test_template_cannot_reach_python(tmp_path):
    write_checkpoint(tmp_path, template="{{ messages.__class__.__mro__[1].__subclasses__() }}x")
    model = LocalModel(tmp_path, name="x", threads=1)
    request = Request("x", TALK, Sampling())
    reply = dict(model.complete([request]))[request]
    assert isinstance(reply, Failure)
    assert "unsafe" in reply.message
