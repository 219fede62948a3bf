"""Vectors: the kernel against plain sums, embedders behind their door, what is kept."""

import asyncio
import json
import math
import random
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import polars as pl
import pytest
from aiohttp import web
from tests.kitchen import Kitchen, drops, rows
from tests.servers import Seen, TeacherServer, refusal, status

from stillroom.errors import ModelError, StoreError
from stillroom.kernels.vectors import BLOCK, Matrix, dedup, nearest, ngrams, scores
from stillroom.models.config import ModelsConfig, OpenAIEntry
from stillroom.models.embeddings import BATCH, ServedEmbedder, embed_all
from stillroom.models.endpoint import Endpoint
from stillroom.models.ledger import Ledger
from stillroom.models.vectors import Vectors
from stillroom.run.planner import totals


def gauss(n, width, seed=1):
    draw = random.Random(seed)
    return [[draw.gauss(0, 1) for _ in range(width)] for _ in range(n)]


def cosine(a, b):
    if a is None or b is None:
        return 0.0
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def greedy(vectors, threshold):
    """Say in plain Python which rows go."""
    stay, gone = [], {}
    for i, vector in enumerate(vectors):
        near = max(stay, key=lambda j: (cosine(vector, vectors[j]), -j), default=None)
        if near is not None and cosine(vector, vectors[near]) >= threshold:
            gone[i] = near
        else:
            stay.append(i)
    return gone


@pytest.mark.parametrize("width", [1, 7, 8, 13, 64])
def test_nearest_is_what_plain_sums_say(width):
    queries, items = gauss(37, width), gauss(301, width, seed=2)
    found = nearest(Matrix.of(queries), Matrix.of(items), 3)
    for i, query in enumerate(queries):
        best = sorted(range(301), key=lambda j: -cosine(query, items[j]))[:3]
        mine = found.filter(pl.col("query") == i)
        wanted = [cosine(query, items[j]) for j in best]
        assert mine["score"].to_list() == pytest.approx(wanted, abs=1e-5)
        if width > 1:
            assert mine["item"].to_list() == best


def test_nearest_prefers_the_first_of_equals_and_exceeds_the_floor():
    matrix = Matrix.of([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert nearest(matrix, matrix, 1)["item"].to_list() == [0, 0, 2]
    assert nearest(matrix, matrix, 3, floor=0.5)["item"].to_list() == [0, 1, 0, 1, 2]
    assert nearest(matrix, Matrix(8), 1).is_empty()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("n", [0, 1, 50, BLOCK + 200])
def test_dedup_is_greedy_and_names_the_nearest_that_stays(n, workers):
    vectors = [[round(x) or 0.1 for x in v] for v in gauss(n, 5)]
    if n > 10:
        vectors[5] = None
    wanted = greedy(vectors, 0.93) if n <= 50 else None
    found = dedup(Matrix.of(vectors), 0.93, workers=workers)
    gone = dict(zip(found["row"], found["witness"], strict=True))
    if wanted is not None:
        assert gone.keys() == wanted.keys()
    stay = [i for i in range(n) if i not in gone]
    assert set(gone.values()) <= set(stay)
    for row, witness, score in found.iter_rows():
        assert witness < row
        assert cosine(vectors[row], vectors[witness]) == pytest.approx(score, abs=1e-5)
    sample = random.Random(2).sample(stay, min(len(stay), 40))
    assert all(cosine(vectors[i], vectors[j]) < 0.93001 for i in sample for j in stay if i != j)


def test_result_does_not_depend_on_workers():
    vectors = ngrams([f"How much is {i % 700} plus {i % 11}?" for i in range(3000)], 512)
    one = dedup(Matrix(512, bytearray(vectors.data)), 0.9)
    assert one.height > 100
    assert dedup(Matrix(512, bytearray(vectors.data)), 0.9, workers=3).equals(one)


def test_scores_are_dot_products_with_a_direction():
    vectors = gauss(10, 8)
    direction = gauss(1, 8, seed=3)[0]
    found = scores(Matrix.of([*vectors, None]), direction)
    size = math.sqrt(sum(x * x for x in direction))
    wanted = [cosine(v, direction) * size for v in vectors]
    assert found == pytest.approx([*wanted, 0.0], abs=1e-5)


def test_ngrams_of_near_texts_are_near_and_of_empty_ones_zero():
    matrix = ngrams(["Wie groß ist ½ von 12?", "Wie groß ist ½ von 13?", "Prove it.", ""], 512)
    found = {(q, i): s for q, i, s in nearest(matrix, matrix, 4).iter_rows()}
    assert found[0, 1] > 0.7
    assert abs(found[0, 2]) < 0.3
    assert found[3, 0] == 0.0
    assert ngrams(["\ud800"], 512).data == ngrams(["?"], 512).data


def test_embedder_of_the_package_is_the_same_for_ever():
    texts = ["What is 2+2?", "Wie groß ist ½ von 12?", "∑ 𝒳", "", "word " * 500]
    digest = blake2b(ngrams(texts, 512).data, digest_size=8).hexdigest()
    assert digest == "f11b7f5d3669c5ad"


# Embedders


def letters(text):
    """A vector that a test can predict: how often a, b, c and d occur, and one."""
    return [float(text.count(c)) for c in "abcd"] + [1.0]


class EmbedderServer(TeacherServer):
    """A server of embeddings; behaves as told at a call, or else answers.

    Attributes:
        texts: All texts that were sent, in order.
    """

    def __init__(self, behave=None, **options):
        super().__init__(**options)
        self.texts: list[str] = []
        self.behave = behave

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.calls["all"] += 1
        self.texts += body["input"]
        seen = Seen("all", self.calls["all"] - 1, self.calls["all"] - 1, body)
        if self.behave and (reply := await self.behave(seen, request)) is not None:
            return reply
        data = [{"index": i, "embedding": letters(t)} for i, t in enumerate(body["input"])]
        return web.json_response({"data": data[::-1]})

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/embeddings", self._complete)


def first(behaviour, times=1):
    """Behave so at the first calls, and then answer."""

    async def behave(seen, request):
        return await behaviour(seen, request) if seen.number < times else None

    return behave


def served(server, **options):
    concurrency = options.pop("concurrency", 8)
    endpoint = Endpoint(
        "some/embedder", [server.url], "/embeddings", "vectors", served_name="emb", pause_s=0.01,
        **options,
    )  # fmt: skip
    return ServedEmbedder(endpoint, concurrency=concurrency)


def test_served_vectors_come_in_order_in_batches():
    with EmbedderServer() as server:
        texts = ["a" * (i % 7) for i in range(3 * BATCH + 5)]
        found = [list(v) for v in served(server).embed(texts)]
        assert found == [letters(t) for t in texts]
        assert len(server.bodies) == 4
        assert server.bodies[0]["model"] == "emb"


@pytest.mark.parametrize(
    "trouble",
    [
        refusal(429, "slow down"),
        status(503, "busy", Retry_After="0"),
        status(200, "not JSON"),
        status(200, {"data": [{"index": 0}]}),
        status(200, {"data": []}),
        status(200, '{"data": [{"index": 0, "embedding": [NaN]}]}'),
        status(200, '{"data": [{"index": 0, "embedding": "AAAA"}]}'),
    ],
)
def test_trouble_passes(trouble):
    with EmbedderServer(first(trouble, 2)) as server:
        assert [list(v) for v in served(server).embed(["ab"])] == [letters("ab")]


def test_trouble_that_stays_is_one_message():
    server = EmbedderServer(first(refusal(500, "out of order"), 99))
    with server, pytest.raises(ModelError, match=r"6 calls in a row failed.*out of order"):
        list(served(server).embed(["ab"]))
    with pytest.raises(ModelError, match="some/embedder: 6 calls in a row failed"):
        list(served(server).embed(["ab"]))


def test_text_that_is_refused_is_found_among_the_others():
    async def behave(seen, request):
        too_long = refusal(400, "maximum context length is 8192 tokens")
        return await too_long(seen, request) if "LONG" in seen.body["input"] else None

    with EmbedderServer(behave) as server:
        texts = ["a", "b", "LONG", "c", "d"]
        found = list(served(server).embed(texts))
        assert [v is None for v in found] == [t == "LONG" for t in texts]


def test_key_is_sent_and_never_shown(monkeypatch):
    monkeypatch.setenv("EMB_KEY", "sk-secret-123456")

    async def echo(seen, request):
        return web.Response(status=401, text=f"bad key {request.headers['Authorization']}")

    with EmbedderServer(echo) as server:
        with pytest.raises(ModelError, match="refuses the key") as error:
            list(served(server, api_key_env="EMB_KEY").embed(["a"]))
        assert server.headers[0]["Authorization"] == "Bearer sk-secret-123456"
    assert "secret" not in str(error.value)


def test_vectors_are_asked_once_and_blank_texts_never(tmp_path):
    with EmbedderServer() as server, Vectors(tmp_path / "v.sqlite") as vectors:
        texts = ["ab", " ", "ab", "cd", ""]
        for _ in range(2):
            found = list(embed_all(texts, served(server), vectors))
            assert [None if v is None else list(v) for v in found] == [
                letters("ab"), None, letters("ab"), letters("cd"), None]  # fmt: skip
        assert server.texts == ["ab", "cd"]


def test_vectors_received_before_trouble_are_kept(tmp_path):
    async def behave(seen, request):
        broken = "a5" in seen.body["input"] and seen.number < 50
        return web.Response(status=500) if broken else None

    texts = [f"a{i // BATCH}" if i % BATCH == 0 else f"b{i}" for i in range(6 * BATCH)]
    with EmbedderServer(behave) as server, Vectors(tmp_path / "v.sqlite") as vectors:
        with pytest.raises(ModelError):
            list(embed_all(texts, served(server, concurrency=1), vectors))
        before = len(server.texts)
        server.behave = None
        assert all(v is not None for v in embed_all(texts, served(server), vectors))
        assert len(server.texts) - before == BATCH


def test_two_models_of_one_name_are_one_message(tmp_path):
    with EmbedderServer() as server, Vectors(tmp_path / "v.sqlite") as vectors:
        list(embed_all(["ab"], served(server), vectors))

        async def wide(seen, request):
            return web.json_response({"data": [{"index": 0, "embedding": [1.0] * 9}]})

        server.behave = wide
        with pytest.raises(ModelError, match="vectors of 5 and of 9 numbers"):
            list(embed_all(["ab", "cd"], served(server), vectors))


def test_file_that_is_no_store_of_vectors_is_one_message(tmp_path):
    (tmp_path / "v.sqlite").write_text("not a database, but long enough to be read as one" * 20)
    with pytest.raises(StoreError, match=r"v\.sqlite: vectors cannot be kept there"):
        Vectors(tmp_path / "v.sqlite")


# The steps


def write(path, *texts):
    path.write_text("".join(json.dumps({"question": t}) + "\n" for t in texts))
    return path


def test_embedding_measures_the_way_from_bad_to_good(tmp_path):
    write(tmp_path / "q.jsonl", "aaaa", "bbbb", "ab", "cc")
    good, bad = write(tmp_path / "good.jsonl", "aa", "aaa"), write(tmp_path / "bad.jsonl", "bb")
    with EmbedderServer() as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        models = ModelsConfig({"some/emb": OpenAIEntry(engine="openai", base_url=server.url)})
        kitchen = Kitchen(tmp_path / "store", {}, models, lambda: ledger)
        text = (
            "name: t\nmodels: {embedder: {name: some/emb}}\ndomains:\n  math:\n"
            f"    - source: {{file: {tmp_path}/q.jsonl}}\n"
            f"    - label: {{embedding: {{positives: {good}, negatives: [{bad}]}}}}\n"
        )
        found = {r["question"]: r["embedding"] for r in rows(kitchen.run(text)["math"])}
        towards = [
            (cosine(letters(q), letters("aa")) + cosine(letters(q), letters("aaa"))) / 2
            - cosine(letters(q), letters("bb"))
            for q in found
        ]
        assert list(found.values()) == pytest.approx(towards, abs=1e-5)
        asked = len(server.texts)
        write(good, "aa", "aaa", "aaaaaa")
        kitchen.run(text)
        assert len(server.texts) == asked + 1  # one new example, and nothing twice


def test_plan_counts_the_vectors_that_are_not_kept(tmp_path):
    write(tmp_path / "q.jsonl", "aaaa", "bbbb", "ab", "aa", "ab")
    good, bad = write(tmp_path / "good.jsonl", "aa", "aaa"), write(tmp_path / "bad.jsonl", "bb")
    with EmbedderServer() as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        models = ModelsConfig({"some/emb": OpenAIEntry(engine="openai", base_url=server.url)})
        kitchen = Kitchen(tmp_path / "store", {}, models, lambda: ledger)
        start = (
            "name: t\nmodels: {embedder: {name: some/emb}}\ndomains:\n  math:\n"
            f"    - source: {{file: {tmp_path}/q.jsonl}}\n"
        )
        label = f"    - label: {{embedding: {{positives: {good}, negatives: [{bad}]}}}}\n"
        waiting = kitchen.plan(start + label)
        assert [p.calls and p.calls.wanted for p in waiting] == [None, None]
        kitchen.run(start)
        assert totals(kitchen.plan(start + label)) == ["some/emb: 6 vectors"]
        kitchen.run(start + "    - dedup: {cosine: 0.99}\n")
        assert len(server.texts) == 4
        assert totals(kitchen.plan(start + label)) == ["some/emb: 2 vectors"]
        spread = "    - take: {n: 2, spread: vectors}\n"
        assert totals(kitchen.plan(start + spread)) == []
        kitchen.run(start + label)
        assert len(server.texts) == 6


def test_callers_that_want_the_same_vectors_share_the_work(tmp_path):
    async def slow(seen, request):
        await asyncio.sleep(0.05)

    texts = [f"a{i}" for i in range(5 * BATCH)]

    def get(own):
        with Ledger(tmp_path / "ledger") as ledger, Vectors(tmp_path / "v.sqlite") as vectors:
            return [list(v) for v in embed_all(own, served(server), vectors, ledger)]

    with EmbedderServer(slow) as server, ThreadPoolExecutor(3) as pool:
        orders = [texts, texts[::-1], texts[2 * BATCH :] + texts[: 2 * BATCH]]
        for own, found in zip(orders, pool.map(get, orders), strict=True):
            assert found == [letters(text) for text in own]
        assert sorted(server.texts) == sorted(texts)


def test_claims_end_when_the_embedder_fails(tmp_path):
    with (
        EmbedderServer(status(500)) as server,
        Ledger(tmp_path / "ledger") as ledger,
        Vectors(tmp_path / "v.sqlite") as vectors,
    ):
        with pytest.raises(ModelError):
            list(embed_all(["ab"], served(server), vectors, ledger))
        server.behave = None
        with Ledger(tmp_path / "ledger") as other:
            assert list(next(embed_all(["ab"], served(server), vectors, other))) == letters("ab")


NEAR = ("What is the sum of twelve and thirty?", "What is the sum of twelve and thirty??", "Why?")


def test_dedup_by_cosine_needs_no_server_with_the_embedder_of_the_package(tmp_path):
    write(tmp_path / "q.jsonl", *NEAR)
    kitchen = Kitchen(tmp_path / "store")
    table = kitchen.chain(
        f"- source: {{file: {tmp_path}/q.jsonl}}\n"
        "- dedup: {cosine: {model: stillroom/ngrams-1, threshold: 0.8}, prefer: [first]}"
    )
    assert [r["question"] for r in rows(table)] == [NEAR[0], NEAR[2]]
    ((_, reason, score, witness),) = drops(kitchen.built[-1]).rows()
    assert (reason, witness) == ("same_meaning", rows(table)[0]["id"])
    assert 0.8 < score < 1


def test_dedup_by_cosine_keeps_the_row_that_is_preferred(tmp_path):
    lines = [{"question": NEAR[0]}, {"question": NEAR[1], "reference": "42"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kitchen = Kitchen(tmp_path / "store")
    step = "- dedup: {cosine: {model: stillroom/ngrams-1, threshold: 0.8}}"
    table = kitchen.chain(f"- source: {{file: {tmp_path}/q.jsonl}}\n{step}")
    assert [r["reference"] for r in rows(table)] == ["42"]
