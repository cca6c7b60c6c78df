"""Settings are compared with what a constructor's annotations take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from gnomon.conf.compose import compose
from gnomon.errors import ConfigError
from gnomon.search.instantiate import instantiate
from gnomon.search.option_types import check_settings

if TYPE_CHECKING:
    from nowhere import Unknown


@dataclass
class Base:
    share: float = 0.5


@dataclass
class Settings(Base):
    names: Sequence[str] = ()
    pair: tuple[int, float] = (1, 2.0)
    sizes: Sequence[Sequence[int]] = ()
    on: bool = False
    kind: Literal["a", "b"] = "a"
    most: int | None = None
    limit: float = None  # type: ignore[assignment]
    table: Mapping[str, float] | None = None
    part: Base | Mapping[str, Any] | None = None
    own: Unknown = None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("share", 1), ("share", 0.5), ("names", ["x", 3]), ("names", []), ("pair", [1, 2]), ("sizes", [[1], []]),
        ("on", True), ("kind", "b"), ("most", None), ("most", 3), ("limit", None), ("table", {"x": 1}), ("part", {}),
        ("part", {"_target_": "somewhere.Base"}), ("own", 5), ("names", [{"_target_": "somewhere.Base"}]),
    ],
)  # fmt: skip
def test_what_fits(name: str, value: object) -> None:
    check_settings(Settings, {name: value}, "group", ())


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("share", "abc", "a number"), ("share", True, "a number"), ("share", None, "a number"),
        ("names", "x", "a list of texts"), ("names", None, "a list of texts"), ("names", [None], "a list of texts"),
        ("pair", [1], "a list of 2: an integer, a number"), ("sizes", [1], "a list of lists of integers"),
        ("on", "off", "true or false"), ("on", 1, "true or false"), ("kind", "c", "a, b"),
        ("most", 3.5, "an integer or null"), ("most", True, "an integer or null"), ("limit", "x", "a number or null"),
        ("table", {"x": "y"}, "a mapping or null"), ("part", 5, "a mapping or null"),
    ],
)  # fmt: skip
def test_what_does_not_names_itself_and_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_settings(Settings, {name: value}, "group", ())
    assert (caught.value.field, caught.value.value, caught.value.allowed) == (f"group.{name}", value, allowed)


def test_a_value_in_place_of_a_list_of_it() -> None:
    with pytest.raises(ConfigError, match=r"Write \[attention\]\."):
        check_settings(Settings, {"names": "attention"}, "group", ())


def test_unknown_and_missing_settings() -> None:
    def make(space: object, size: int, rate: float = 1.0) -> None:
        """Nothing."""

    check_settings(make, {"size": 3}, "group", ["space"])
    with pytest.raises(ConfigError, match=r"group\.sizes=4: make has no such setting \(allowed: size, rate\)"):
        check_settings(make, {"size": 3, "sizes": 4}, "group", ["space"])
    with pytest.raises(ConfigError, match=r"group\.size=None: must be given"):
        check_settings(make, {}, "group", ["space"])
    check_settings(make, {"_partial_": True}, "group", ["space"])


def test_nodes_in_nodes() -> None:
    config = compose("search", ["task=python_stdlib", "task.data.max_bytes=many"])
    with pytest.raises(ConfigError, match=r"task\.data\.max_bytes='many': wrong type \(allowed: an integer or null\)"):
        instantiate(config.task, "task")
