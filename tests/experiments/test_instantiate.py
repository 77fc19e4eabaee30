"""Objects from `_target_` nodes: what fits is built, what does not is refused by its full name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from experiments.instantiate import accepts, build, factory, parameter_names
from workbench.errors import ConfigError


@dataclass
class Part:
    size: int = 1


class Whole:
    def __init__(
        self,
        rate: float,
        name: str = "x",
        part: Part | None = None,
        mode: Literal["a", "b"] = "a",
        *,
        given: Any = None,
    ) -> None:
        if rate == 13:
            raise ConfigError("rate=13 is out of luck")
        self.rate, self.name, self.part, self.mode, self.given = rate, name, part, mode, given


def make_whole(rate: float) -> Whole:
    return Whole(rate)


WHOLE = f"{__name__}.Whole"
PART = f"{__name__}.Part"


def node(**values: Any) -> Any:
    return OmegaConf.create({"_target_": WHOLE, **values})


def test_builds_nested_nodes_and_passes_objects_through_untouched() -> None:
    given = Part(7)
    built = build(node(rate=2, part={"_target_": PART, "size": 3}), "whole", given=given)
    assert (built.rate, built.part) == (2, Part(3))
    assert built.given is given


def test_a_factory_makes_objects_that_share_no_part() -> None:
    make = factory(node(rate=1.0, part={"_target_": PART}), "whole")
    assert make().part is not make().part


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "abc"}, "whole.rate='abc': expected a number"),
        ({"rate": True}, "whole.rate=True: expected a number"),
        ({"rate": 1, "name": 3}, "whole.name=3: expected text"),
        ({"rate": 1, "mode": "c"}, "whole.mode='c': expected one of a, b"),
        (
            {"rate": 1, "nam": "y"},
            "whole.nam: there is no such parameter; did you mean whole.name?",
        ),
        ({}, "whole.rate is not set"),
        ({"rate": 13}, "whole.rate=13 is out of luck"),
        ({"rate": float("nan")}, "whole.rate=nan: expected a finite number"),
        ({"rate": 1, "given": [{"a": float("inf")}]}, "whole.given[0].a=inf: expected a finite"),
        ({"rate": 1, "part": {"_target_": WHOLE, "rate": 1}}, f"whole.part._target_={WHOLE}: it"),
        ({"rate": 1, "given": {"_target_": WHOLE, "rate": 13}}, "whole.given.rate=13 is out of"),
        (
            {"rate": 1, "part": {"_target_": PART, "size": "big"}},
            "whole.part.size='big': expected a whole number",
        ),
    ],
)
def test_refuses_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(node(**values), "whole")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_function_makes_is_checked_when_it_is_there() -> None:
    target = OmegaConf.create({"_target_": f"{__name__}.make_whole", "rate": 2})
    assert build(target, "whole", Whole).rate == 2
    with pytest.raises(
        ConfigError, match=r"make_whole: it makes a Whole, and whole needs a .*Part"
    ):
        build(target, "whole", Part)
    assert build(OmegaConf.create({"_target_": PART}), "part", Part) == Part()


def test_refuses_a_node_without_a_class_and_a_class_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no _target_"):
        build(OmegaConf.create({"rate": 1}), "whole")
    with pytest.raises(ConfigError, match="module workbench has no 'nowhere'"):
        build(OmegaConf.create({"_target_": "workbench.nowhere.Nothing"}), "whole")


def test_accepts_knows_plain_types_only() -> None:
    assert accepts(float, 3)
    assert not accepts(int, 3.0)
    assert accepts(int | None, None)
    assert accepts(Path, "a/b")
    assert accepts(dict[str, int], {"a": 1})


def test_parameter_names() -> None:
    assert parameter_names(WHOLE) == {"rate", "name", "part", "mode", "given"}
    assert parameter_names("no.such.thing") == set()
