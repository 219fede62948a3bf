"""Numbers and tokens of a fixed tiny model: the same on every machine, for ever."""

import json
from array import array
from hashlib import blake2b

import pytest
from tests.tiny_checkpoints import write_checkpoint

from stillroom.models.chat import Message, Request, Sampling
from stillroom.models.local import LocalModel, _engine


@pytest.mark.parametrize("kernels", _engine.supported())
def test_logits_of_the_tiny_model_never_change_by_a_bit(tmp_path, kernels):
    model = LocalModel(write_checkpoint(tmp_path), name="golden", kernels=kernels)
    data = model.checkpoint.model.logits(array("i", range(200)))
    assert blake2b(data, digest_size=16).hexdigest() == "931648d78026cf247a1b453f35db2df9"


def test_tokens_of_the_tiny_model_never_change(tmp_path):
    model = LocalModel(write_checkpoint(tmp_path), name="golden", slots=5)
    requests = [
        Request("golden", (Message("user", f"{q}+{q}?"),), Sampling(t, p, 60), draw)
        for q in range(4)
        for t, p in ((0.0, None), (1.0, None), (0.7, 0.9))
        for draw in range(4)
    ]
    replies = dict(model.complete(requests))
    digest = blake2b(digest_size=16)
    for request in requests:
        reply = replies[request]
        told = [reply.answer, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens]
        digest.update(json.dumps(told).encode())
    assert digest.hexdigest() == "98192f2433c9b4e6b671ea3a2be614c9"
