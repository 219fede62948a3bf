"""Read a model directory in Hugging Face form: sizes, weights, tokenizer, chat template.

Covered: the Qwen2, Llama and Qwen3 families in float32, float16 or bfloat16, in one file or in
shards, with plain, linear or llama3 rotary positions. Everything is checked against everything else
before a number reaches the C engine, which trusts the sizes that it is given.

Not covered: sliding windows, quantised weights, other rotary scalings, tool calls in templates.
"""

import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from stillroom.errors import ModelError
from stillroom.models.chat import Message
from stillroom.models.local import _engine
from stillroom.models.local.safetensors import BYTES, Tensor, read_header
from stillroom.text.think import CLOSE, OPEN, join_thinking

# What sets the families apart: biases on q, k and v; norms on q and k.
FAMILIES = {
    "Qwen2ForCausalLM": (True, False),
    "LlamaForCausalLM": (False, False),
    "Qwen3ForCausalLM": (False, True),
}

LARGEST_CONTEXT = 1 << 20
REMEMBERED_PROMPTS = 64
LARGEST_NUMBER = 1e12  # of those in a rotary scaling


class PromptError(Exception):
    """A conversation that this model's chat template refuses; concerns one request only."""


class Prompt(NamedTuple):
    """A conversation as the model reads it.

    Attributes:
        tokens: Token ids.
        opened: Whether the template ends in ``<think>``, so that the answer starts inside it.
    """

    tokens: "array[int]"
    opened: bool


@dataclass(frozen=True, slots=True)
class Sizes:
    """What config.json says about the shape of a model."""

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    context: int
    frequencies: tuple[float, ...]
    eps: float
    qkv_bias: bool
    qk_norm: bool
    tied: bool | None


class Checkpoint:
    """A model directory that was read and found whole.

    Attributes:
        directory: Where it lies.
        sizes: The shape of the model.
        ends: Token ids that end a completion.
        model: The weights, in the C engine's layout.

    Raises:
        ModelError: If a file is missing, torn, contradicts another, or needs what the engine lacks.
    """

    def __init__(self, directory: Path, *, kernels: str | None = None) -> None:
        if not directory.is_dir():
            raise ModelError(
                f"{directory}: no such directory; expected a model in Hugging Face form "
                "(config.json, model.safetensors, tokenizer.json). Check the path."
            )
        self.directory = directory
        config = _read_json(directory / "config.json")
        self.sizes = read_sizes(config, directory / "config.json")
        self._tokenizer = _read_tokenizer(directory / "tokenizer.json", self.sizes.vocab)
        settings = _read_json(directory / "tokenizer_config.json")
        self._special = _special_tokens(settings)
        self._template = _read_template(directory, settings)
        generation = directory / "generation_config.json"
        self.ends = self._find_ends(
            config.get("eos_token_id"),
            _read_json(generation).get("eos_token_id") if generation.exists() else None,
        )
        # Thinking tags stay in the text even where a tokenizer calls them special.
        self._silent = frozenset(
            i
            for i, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special and token.content not in (OPEN, CLOSE)
        )
        self.model = _read_weights(directory, self.sizes, kernels)
        self._prompts: dict[tuple[Message, ...], Prompt] = {}

    def _find_ends(self, *stated: Any) -> tuple[int, ...]:
        """Collect the end tokens of both config files and of the tokenizer."""
        ends: set[int] = set()
        for value in stated:
            for end in value if isinstance(value, list) else [value]:
                if type(end) is int and 0 <= end < self.sizes.vocab:
                    ends.add(end)
        if (end := self._tokenizer.token_to_id(self._special.get("eos_token", ""))) is not None:
            ends.add(end)
        return tuple(sorted(ends))

    def prompt(self, messages: tuple[Message, ...]) -> Prompt:
        """Render and encode a conversation.

        Raises:
            PromptError: If the template refuses it, or nothing is left of it.
        """
        # Draws of one question arrive together; rendering and encoding cost more than a look-up.
        prompt = self._prompts.get(messages)
        if prompt is None:
            prompt = self._render(messages)
            if len(self._prompts) >= REMEMBERED_PROMPTS:
                self._prompts.clear()
            self._prompts[messages] = prompt
        return prompt

    def _render(self, messages: tuple[Message, ...]) -> Prompt:
        text = _rendered(self._template, messages, self._special)
        # Half of a surrogate pair can come out of JSON; no tokenizer can encode it.
        text = text.encode("utf-8", "replace").decode()
        tokens = array("i", self._tokenizer.encode(text, add_special_tokens=False).ids)
        if not tokens:
            raise PromptError("the conversation renders to no tokens at all")
        return Prompt(tokens, text.rstrip().endswith(OPEN))

    def reply(self, prompt: Prompt, reasoning: str | None, answer: str) -> list[int]:
        """Encode what an assistant says after a prompt, with the token that ends its turn.

        Where the prompt opens the thinking already, the tag is not said again.

        Raises:
            PromptError: If the prompt opens a thinking, and there is none.
        """
        text = join_thinking(reasoning, answer)
        if prompt.opened:
            if reasoning is None:
                raise PromptError("the chat template opens a thinking, and the answer has none")
            text = text.removeprefix(OPEN)
            asked = self._tokenizer.decode(list(prompt.tokens), skip_special_tokens=False)
            text = text.removeprefix("\n" if asked.endswith("\n") else "")
        return self.completion(text)

    def completion(self, text: str) -> list[int]:
        """Encode what an assistant says, with the token that ends its turn."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        end = self._tokenizer.token_to_id(self._special.get("eos_token", ""))
        return [*tokens, self.ends[0] if end is None else end]

    def tokens(self, text: str) -> list[int]:
        """Encode a text as it stands, without special tokens."""
        text = text.encode("utf-8", "replace").decode()
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def text(self, tokens: list[int]) -> str:
        """Decode a completion, without end tokens and the like."""
        kept = [token for token in tokens if token not in self._silent]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def decoder(self) -> "Decoder":
        """Decode one completion piece by piece."""
        return Decoder(self._tokenizer, self._silent)


def can_run(directory: Path) -> None:
    """Look whether the engine can run a model, without reading its weights.

    Raises:
        ModelError: If it cannot.
    """
    where = directory / "config.json"
    read_sizes(_read_json(where), where)


def opens_thinking(directory: Path) -> bool:
    """Tell whether a model's chat template ends a prompt in ``<think>``; no weights are read.

    Raises:
        ModelError: If there is no template.
        PromptError: If it refuses a plain question.
    """
    settings = _read_json(directory / "tokenizer_config.json")
    return (
        _rendered(
            _read_template(directory, settings), (Message("user", "?"),), _special_tokens(settings)
        )
        .rstrip()
        .endswith(OPEN)
    )


class Speech:
    """How a model of any family is spoken to: its tokenizer and chat template; no weights are read.

    Attributes:
        end: Token id that ends a turn.
        added: Token ids that stand for one text each, such as roles and think tags.

    Raises:
        ModelError: If a file is missing or torn, or there is no template or end token.
    """

    def __init__(self, directory: Path) -> None:
        settings = _read_json(directory / "tokenizer_config.json")
        self._special = _special_tokens(settings)
        self._template = _read_template(directory, settings)
        self._tokenizer = _read_tokenizer(directory / "tokenizer.json", vocab=1 << 31)
        end = self._tokenizer.token_to_id(self._special.get("eos_token", ""))
        if end is None:
            raise ModelError(
                f"{directory}: the tokenizer has no end token; expected eos_token in "
                "tokenizer_config.json. Take the model's instruct form, or add it."
            )
        self.end = end
        self.added = frozenset(self._tokenizer.get_added_tokens_decoder())

    def rendered(self, messages: tuple[Message, ...], *, ask: bool) -> str:
        """Render a conversation, and the opening of an answer if one is asked for.

        Raises:
            PromptError: If the template refuses it.
        """
        return _rendered(self._template, messages, self._special, ask=ask)

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts as they stand, without special tokens."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [one.ids for one in found]

    def decoded(self, tokens: Sequence[int]) -> str:
        """Decode tokens, special ones too."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))


class Decoder:
    """Text of a completion that is still being drawn.

    A character whose bytes are spread over tokens is held back until it is whole.
    """

    def __init__(self, tokenizer: Tokenizer, silent: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._silent = silent
        self._tokens: list[int] = []
        self._told = ""

    def push(self, tokens: list[int], *, last: bool = False) -> str:
        """Take tokens and return the text that is certain by now."""
        self._tokens += [token for token in tokens if token not in self._silent]
        text = str(self._tokenizer.decode(self._tokens, skip_special_tokens=False))
        if text.endswith("\N{REPLACEMENT CHARACTER}") and not last:
            return ""
        fresh = text[len(self._told) :]
        self._told = text
        # What follows needs one token of context at most, as decoders may join across a border.
        if len(self._tokens) > 64 and fresh:
            self._tokens = self._tokens[-8:]
            self._told = str(self._tokenizer.decode(self._tokens, skip_special_tokens=False))
        return fresh


# ---- config.json ---------------------------------------------------------------------------------


def read_sizes(config: dict[str, Any], where: Path) -> Sizes:
    """Check config.json and take the sizes from it.

    Raises:
        ModelError: If the engine cannot compute such a model.
    """
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if name not in FAMILIES:
        raise ModelError(
            f"{where}: architectures is {names!r}; expected one of {', '.join(FAMILIES)}. "
            "Serve other models with another engine and give its address."
        )
    qkv_bias, qk_norm = FAMILIES[name]

    def refuse(key: str, value: Any, expected: str) -> ModelError:
        return ModelError(
            f"{where}: {key} is {value!r}; expected {expected}. "
            "Serve other models with another engine and give its address."
        )

    def size(key: str, most: int, *, default: int | None = None, least: int = 1) -> int:
        value = config.get(key)
        value = default if value is None else value
        if type(value) is not int or not least <= value <= most:
            raise refuse(key, value, f"a whole number, {least} to {most}")
        return value

    if config.get("hidden_act", "silu") != "silu":
        raise refuse("hidden_act", config["hidden_act"], "silu")
    for key in ("quantization_config", "attention_bias", "mlp_bias", "use_sliding_window"):
        if config.get(key):
            raise refuse(key, config[key], "none")
    kinds = config.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or set(kinds) - {"full_attention"}):
        raise refuse("layer_types", kinds, "full_attention only")

    dim = size("hidden_size", 1 << 16)
    heads = size("num_attention_heads", 1024)
    kv_heads = size("num_key_value_heads", 1024, default=heads)
    if heads % kv_heads:
        raise refuse("num_key_value_heads", kv_heads, f"a divisor of {heads}")
    head_dim = size("head_dim", 512, default=max(2, dim // heads), least=2)
    if head_dim % 2:
        raise refuse("head_dim", head_dim, "an even number")
    tied = config.get("tie_word_embeddings")
    eps = config.get("rms_norm_eps", 1e-6)
    if not isinstance(eps, int | float) or not 0 <= eps < 1:
        raise refuse("rms_norm_eps", eps, "a number, 0 to 1")
    return Sizes(
        vocab=size("vocab_size", 1 << 20),
        dim=dim,
        layers=size("num_hidden_layers", 1024),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ff=size("intermediate_size", 1 << 20),
        context=size("max_position_embeddings", LARGEST_CONTEXT, least=2),
        frequencies=_frequencies(config, head_dim, refuse),
        eps=float(eps),
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        tied=tied if isinstance(tied, bool) else None,
    )


def _frequencies(config: dict[str, Any], head_dim: int, refuse: Any) -> tuple[float, ...]:
    """Compute the rotary frequencies, in radians per position.

    Sources: Su et al. 2021 (arXiv 2104.09864); llama3 scaling as in transformers'
    ``modeling_rope_utils``.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise refuse("rope_parameters", rope, "an object")
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    if not isinstance(theta, int | float) or not 1 <= theta <= LARGEST_NUMBER:
        raise refuse("rope_theta", theta, "a number, 1 to 1e12")
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise refuse("partial_rotary_factor", config.get("partial_rotary_factor"), "1.0")
    with localcontext(prec=40):
        # Decimal, because pow() of the C library may differ in the last digit between machines.
        log = Decimal(theta).ln()
        plain = [float((-log * (2 * i) / head_dim).exp()) for i in range(head_dim // 2)]
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return tuple(plain)

    def number(key: str) -> float:
        value = rope.get(key)
        if not isinstance(value, int | float) or not 1 <= value <= LARGEST_NUMBER:
            raise refuse(f"rope {key}", value, "a number, 1 to 1e12")
        return float(value)

    if kind == "linear":
        factor = number("factor")
        return tuple(f / factor for f in plain)
    if kind == "llama3":
        factor, low, high = number("factor"), number("low_freq_factor"), number("high_freq_factor")
        old = number("original_max_position_embeddings")
        if high <= low:
            raise refuse("rope high_freq_factor", high, f"more than low_freq_factor, {low}")
        scaled = []
        for f in plain:
            turns = old * f / (2 * math.pi)  # full turns within the old context
            smooth = min(1.0, max(0.0, (turns - low) / (high - low)))
            scaled.append((1 - smooth) * f / factor + smooth * f)
        return tuple(scaled)
    raise refuse("rope_type", kind, "default, linear or llama3")


# ---- model.safetensors ---------------------------------------------------------------------------


def _read_weights(directory: Path, sizes: Sizes, kernels: str | None) -> _engine.Model:
    """Check every tensor's name, type and shape, then hand them to the engine."""
    tensors = _list_tensors(directory)
    tied = sizes.tied if sizes.tied is not None else "lm_head.weight" not in tensors
    places = _places(sizes, tied=tied)
    for name, (_, _, shape) in places.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise ModelError(
                f"{directory}: tensor {name} is missing; expected one of shape {shape}, as "
                "config.json says. Take config.json and weights from the same model."
            )
        if tensor.shape != shape:
            raise ModelError(
                f"{tensor.path}: tensor {name} has shape {tensor.shape}; expected {shape}, as "
                "config.json says. Take config.json and weights from the same model."
            )
        if tensor.dtype not in BYTES:
            raise ModelError(
                f"{tensor.path}: tensor {name} has numbers of type {tensor.dtype}; expected "
                f"{', '.join(BYTES)}. Convert the weights to bfloat16 or float32."
            )
    try:
        model = _engine.Model(
            vocab=sizes.vocab,
            dim=sizes.dim,
            layers=sizes.layers,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
            ff=sizes.ff,
            context=sizes.context,
            frequencies=sizes.frequencies,
            eps=sizes.eps,
            qkv_bias=sizes.qkv_bias,
            qk_norm=sizes.qk_norm,
            tied=tied,
            kernels=kernels,
        )
        for name, (part, layer, _) in places.items():
            tensor = tensors[name]
            if not model.load(part, layer, tensor.dtype, tensor.read()):
                raise ModelError(
                    f"{tensor.path}: tensor {name} holds NaN or infinity; expected finite numbers. "
                    "The file is damaged or its training diverged: take another checkpoint."
                )
    except MemoryError as error:
        raise ModelError(
            f"{directory}: the weights do not fit into memory as float32; expected room for "
            f"{sum(math.prod(p[2]) for p in places.values()) * 4:,} bytes. Use a smaller model."
        ) from error
    return model


def _list_tensors(directory: Path) -> dict[str, Tensor]:
    whole, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if whole.exists():
        return read_header(whole)
    if not index.exists():
        raise ModelError(
            f"{directory}: no model.safetensors; expected weights in safetensors form. "
            "Save the model with save_pretrained(safe_serialization=True)."
        )
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(v, str) for v in shards.values()):
        raise ModelError(
            f"{index}: weight_map is missing or malformed; expected tensor names with file names. "
            "Copy or download it again."
        )
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard:
            raise ModelError(
                f"{index}: shard {shard!r} is outside the directory; expected a plain file name. "
                "Do not use this file."
            )
        tensors |= read_header(directory / shard)
    return tensors


def _places(sizes: Sizes, *, tied: bool) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    """List each tensor's name in the file with its name, layer and shape in the engine."""
    dim, ff = sizes.dim, sizes.ff
    q, kv = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    places: dict[str, tuple[str, int, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("embed", -1, (sizes.vocab, dim)),
        "model.norm.weight": ("norm", -1, (dim,)),
    }
    if not tied:
        places["lm_head.weight"] = ("head", -1, (sizes.vocab, dim))
    parts: dict[str, tuple[str, tuple[int, ...]]] = {
        "self_attn.q_proj.weight": ("q", (q, dim)),
        "self_attn.k_proj.weight": ("k", (kv, dim)),
        "self_attn.v_proj.weight": ("v", (kv, dim)),
        "self_attn.o_proj.weight": ("o", (dim, q)),
        "mlp.gate_proj.weight": ("gate", (ff, dim)),
        "mlp.up_proj.weight": ("up", (ff, dim)),
        "mlp.down_proj.weight": ("down", (dim, ff)),
        "input_layernorm.weight": ("input_norm", (dim,)),
        "post_attention_layernorm.weight": ("post_norm", (dim,)),
    }
    if sizes.qkv_bias:
        parts["self_attn.q_proj.bias"] = ("q_bias", (q,))
        parts["self_attn.k_proj.bias"] = ("k_bias", (kv,))
        parts["self_attn.v_proj.bias"] = ("v_bias", (kv,))
    if sizes.qk_norm:
        parts["self_attn.q_norm.weight"] = ("q_norm", (sizes.head_dim,))
        parts["self_attn.k_norm.weight"] = ("k_norm", (sizes.head_dim,))
    for layer in range(sizes.layers):
        for name, (part, shape) in parts.items():
            places[f"model.layers.{layer}.{name}"] = (part, layer, shape)
    return places


# ---- tokenizer and chat template -----------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path}: no such file; expected it in a model directory in Hugging Face form. "
            "Save the model and its tokenizer with save_pretrained."
        ) from error
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); expected a JSON file. "
            "Check its permissions."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}: not JSON ({error}); expected a JSON object. Copy or download it again."
        ) from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{path}: holds a {type(value).__name__}; expected a JSON object. "
            "Copy or download it again."
        )
    return value


def _read_tokenizer(path: Path, vocab: int) -> Tokenizer:
    if not path.exists():
        raise ModelError(
            f"{path}: no such file; expected the model's tokenizer. "
            "Save it with save_pretrained; slow tokenizers must be converted first."
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelError(
            f"{path}: not a tokenizer ({error}); expected the tokenizers library's JSON form. "
            "Copy or download it again."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= vocab:
        raise ModelError(
            f"{path}: has a token with id {largest}; expected ids below vocab_size, {vocab}. "
            "Take tokenizer and weights from the same model."
        )
    return tokenizer


def _rendered(
    template: jinja2.Template,
    messages: tuple[Message, ...],
    special: dict[str, str],
    *,
    ask: bool = True,
) -> str:
    try:
        return template.render(
            messages=[{"role": m.role, "content": m.content} for m in messages],
            tools=None,
            documents=None,
            add_generation_prompt=ask,
            **special,
        )
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, KeyError) as error:
        raise PromptError(f"the chat template refuses this conversation: {error}") from error


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """Collect bos_token and the like, which templates may name."""
    special = {}
    for key, value in settings.items():
        if key.endswith("_token"):
            content = value.get("content") if isinstance(value, dict) else value
            if isinstance(content, str):
                special[key] = content
    return special


class _Generation(Extension):
    """``{% generation %}``: marks the assistant's words for training; here only its body counts."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it as an instance attribute)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _read_template(directory: Path, settings: dict[str, Any]) -> jinja2.Template:
    """Compile the chat template as transformers does.

    One difference: ``strftime_now`` stays undefined, so that a prompt does not depend on the day;
    templates that use it bring a fixed date for that case.
    """
    path = directory / "chat_template.jinja"
    source: Any
    if path.exists():
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(
                f"{path}: not UTF-8 ({error.reason}); expected a jinja2 template. "
                "Copy or download it again."
            ) from error
    else:
        path = directory / "tokenizer_config.json"
        source = settings.get("chat_template")
        if isinstance(source, list):  # several named templates
            named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
            source = named.get("default")
    if not isinstance(source, str):
        raise ModelError(
            f"{directory}: no chat template; expected chat_template.jinja, or chat_template in "
            "tokenizer_config.json. Add the template that the model was trained with."
        )

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Not jinja2's own: that one escapes HTML, which models never saw in training.
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise ModelError(
            f"{path}: chat template does not compile ({error}); expected a jinja2 template. "
            "Repair it, or copy it again."
        ) from error
