"""Small model directories with random weights, written without torch.

Weights come from `random.Random`, whose numbers are the same on every machine.
"""

import json
import random
import struct
from math import prod
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

TEMPLATE = (
    "{%- for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END = 258  # <|im_end|>
VOCAB = 272  # more than the tokenizer has, as in real models

SMALL = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": VOCAB,
    "bos_token_id": None,
    "eos_token_id": END,
    "torch_dtype": "float32",
}


def shapes(config):
    """Every tensor that transformers expects for a config."""
    dim, ff, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim") or dim // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    out = {"model.embed_tokens.weight": (vocab, dim), "model.norm.weight": (dim,)}
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = (vocab, dim)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            out[f"{at}self_attn.{name}_proj.weight"] = (rows, dim)
            if config["model_type"] == "qwen2":
                out[f"{at}self_attn.{name}_proj.bias"] = (rows,)
        if config["model_type"] == "qwen3":
            out[f"{at}self_attn.q_norm.weight"] = (head,)
            out[f"{at}self_attn.k_norm.weight"] = (head,)
        out[f"{at}self_attn.o_proj.weight"] = (dim, q)
        out[f"{at}mlp.gate_proj.weight"] = (ff, dim)
        out[f"{at}mlp.up_proj.weight"] = (ff, dim)
        out[f"{at}mlp.down_proj.weight"] = (dim, ff)
        out[f"{at}input_layernorm.weight"] = (dim,)
        out[f"{at}post_attention_layernorm.weight"] = (dim,)
    return out


def random_tensors(config, seed=0):
    """Numbers of a size at which a random model is neither flat nor stuck on one token."""
    tensors = {}
    for name, shape in shapes(config).items():
        rng = random.Random(f"{seed}/{name}")
        middle, spread = (1.0, 0.4) if name.endswith("norm.weight") else (0.0, 0.5)
        if name.endswith("embed_tokens.weight"):
            spread = 1.2
        numbers = [middle + spread * (rng.random() - 0.5) for _ in range(prod(shape))]
        tensors[name] = (shape, numbers)
    return tensors


def encode(numbers, dtype):
    data = struct.pack(f"<{len(numbers)}f", *numbers)
    if dtype == "F32":
        return data
    if dtype == "F16":
        return struct.pack(f"<{len(numbers)}e", *numbers)
    return b"".join(data[i + 2 : i + 4] for i in range(0, len(data), 4))  # BF16, cut off


def write_safetensors(path, tensors, dtype="F32"):
    header, body = {}, b""
    for name, (shape, numbers) in tensors.items():
        data = encode(numbers, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + body)


def write_tokenizer(directory, template=TEMPLATE):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    if template is not None:
        settings["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def write_checkpoint(directory, *, seed=0, dtype="F32", template=TEMPLATE, **changes):
    """Write a model directory; `changes` go into config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    config = SMALL | changes
    (directory / "config.json").write_text(json.dumps(config))
    write_tokenizer(directory, template)
    write_safetensors(directory / "model.safetensors", random_tensors(config, seed), dtype)
    return directory
