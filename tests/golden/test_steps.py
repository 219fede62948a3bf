"""Rows of every step, held to what they were: a change of rows needs a change of version."""

import json

import pytest
from tests.golden.cases import ALL, golden_file, rows_of

from stillroom.evaluate.items import Items
from stillroom.recipe.form import STEPS


def test_every_step_has_a_case():
    assert {case.split("_")[0] for case in ALL} == {*STEPS, Items.STEP}


@pytest.mark.parametrize("step", ALL)
def test_rows_are_those_of_the_recorded_version(step):
    path = golden_file(step)
    assert path.exists(), f"no {path.name}; record it with `make golden`"
    assert rows_of(step) == json.loads(path.read_text()), (
        f"{step} gives other rows than {path.name}. "
        "If you meant it, raise VERSION and run `make golden`."
    )
