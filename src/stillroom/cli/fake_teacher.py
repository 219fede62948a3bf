"""`fake-teacher`."""

import os
from typing import Any

import click

from stillroom.errors import ModelError
from stillroom.models.config import Price
from stillroom.models.fake_teacher import Fault, Script, Spread, serve


class _Parsed(click.ParamType):  # type: ignore[type-arg]  # generic in some releases only
    """An option whose type reads it from text."""

    def __init__(self, kind: type[Spread] | type[Fault]) -> None:
        self.name = kind.__name__.lower()
        self._kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, self._kind):
            return value
        try:
            return self._kind.parse(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@click.command("fake-teacher")
@click.option("--latency", type=_Parsed(Spread), default="0", show_default=True,
              metavar="P50[,P99]",
              help="Seconds that answers take: all the same, or lognormal.")  # fmt: skip
@click.option("--fault", "faults", type=_Parsed(Fault), multiple=True,
              metavar="KIND[=SHARE][@FIRST-LAST][/RETRY_AFTER]",
              help="What goes wrong: a status such as 429, or drop, half, malformed, wrong_n, "
              "hang, slow, huge; for which share of the calls; for which of them, counted from 1; "
              "and the seconds in Retry-After. Repeatable.")  # fmt: skip
@click.option("--slots", type=click.IntRange(min=1), default=None,
              help="Calls that it works on at once.")  # fmt: skip
@click.option("--queue", type=click.IntRange(min=0), default=None,
              help="Calls that wait for a slot at most; those beyond get 429.")  # fmt: skip
@click.option("--price", nargs=2, type=click.FloatRange(min=0), default=None,
              metavar="PROMPT COMPLETION",
              help="USD per million tokens, for the stats.")  # fmt: skip
@click.option("--tokens", type=_Parsed(Spread), default="50", show_default=True,
              metavar="P50[,P99]",
              help="Words of reasoning in an answer: always as many, or lognormal.")  # fmt: skip
@click.option("--api-key-env", metavar="NAME", default=None,
              help="Environment variable with the key that it wants.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of faults and latencies.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535),
              help="Port to listen on; 0 takes a free one.")  # fmt: skip
def fake_teacher(
    price: tuple[float, float] | None,
    api_key_env: str | None,
    host: str,
    port: int,
    **fields: Any,
) -> None:
    """Serve answers that mean nothing, and faults by script, to rehearse a run for nothing.

    It speaks the OpenAI protocol. The same request always gets the same answer. GET /stats tells
    what was asked, answered and charged. Stop it with Ctrl-C.
    """
    key = os.environ.get(api_key_env) if api_key_env else None
    if api_key_env and not key:
        raise ModelError(
            f"--api-key-env: {api_key_env} is not set; expected the key that callers will send. "
            "Set it to any word."
        )
    script = Script(
        price=Price(prompt=price[0], completion=price[1]) if price else None, key=key, **fields
    )
    serve(script, host, port, ready=lambda url: click.echo(f"{url}; stop with Ctrl-C"))
