"""``gnomon measure operators``."""

from __future__ import annotations

import json

import pytest

from gnomon import cli
from gnomon.predictors.generation import OperatorTable

SMALL = ("space.widths=[32]", "space.mixers=[attention]", "space.head_sizes=[16]", "space.kv_heads=[2]", "n=20")
QUICK = ("protocol.processes=1", "protocol.min_processes=1", "protocol.time_cap_s=0.01", "protocol.min_runs=3")


def gnomon(capsys, *words: str, code: int = 0) -> str:
    assert cli.main(["measure", "operators", *words]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_the_plan_lists_each_operator_once(capsys) -> None:
    found = json.loads(gnomon(capsys, *SMALL, "steps=[16,64]", "--plan", "--json"))["models"]
    kinds = [name.split("-")[0] + " " + name.split("-")[1] for name in found]
    assert sorted(kinds) == ["0x base", "8x attention", "8x attention", "8x ffn"]


@pytest.mark.parametrize("words", [("steps=[0]", "prefills=[]"), ("steps=[256]", "prefills=[]", "space.context=512")])
def test_models_are_not_shorter_than_the_spaces_where_little_is_measured(capsys, words) -> None:
    assert json.loads(gnomon(capsys, *SMALL, *words, "--plan", "--json"))["models"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["space=mobile_cnn"], "language models"),
        (["steps=[]"], "nothing is measured"),
        (["steps=[-1]"], "steps"),
        (["copies=0"], "copies"),
        (["steps=1024"], "Write [1024]."),
        (["prefills=many"], "prefills='many': no list"),
        (["sparse=off"], "sparse='off': wrong type (allowed: true or false)"),
        (["space.max_length=64", "steps=[16]", "prefills=[128]"], "space.max_length=64: shorter"),
    ],
)
def test_a_mistake_gets_one_line(capsys, words, says) -> None:
    message = gnomon(capsys, *words, "n=1", "--plan", code=2)
    assert says in message
    assert len(message.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_table_is_measured_and_written(capsys, tmp_path) -> None:
    path = tmp_path / "operators.json"
    # 1,500 tokens are more than the space's models take where nobody says how many.
    words = (*SMALL, *QUICK, "steps=[16,1500]", "prefills=[8]", "copies=1", f"to={path}", "--json")
    assert json.loads(gnomon(capsys, *words))["entries"] == 7
    table = OperatorTable.load(path)
    assert {(entry.part.kind, entry.phase) for entry in table.entries} == {
        (kind, phase) for kind in ("attention", "ffn", "base") for phase in ("step", "prefill")
    }
