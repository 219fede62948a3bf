"""The ``local`` engine: small language models on the CPU, without torch or numpy.

LocalModel   a directory in Hugging Face form behind the ChatModel door
serve        the same engine behind an OpenAI-compatible address
"""

from stillroom.models.local.engine import LocalModel

__all__ = ["LocalModel"]
