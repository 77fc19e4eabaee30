"""A command's own settings beside those of a run."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.own_settings import part_command_line
from workbench.config import at_least, check_types
from workbench.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Own:
    rounds: int = 4
    loads: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        check_types(self)
        at_least(self, 1, "rounds")


def test_a_command_line_is_parted() -> None:
    argv = ["model=qwen3_8b", "own.rounds=2", "hydra.run.dir=out", "own.loads=[0.2,1]", "seed=1"]
    settings, folder, rest = part_command_line(argv, "own", Own)
    assert settings == Own(rounds=2, loads=(0.2, 1))
    assert folder == Path("out")
    assert rest == ["model=qwen3_8b", "seed=1"]
    assert part_command_line([], "own", Own)[0] == Own()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("own.round=2", "own.round=2: own has: rounds, loads"),
        ("own.rounds=0", "own.rounds=0 must be at least 1"),
        ("own.rounds=few", "own.rounds='few' must be of type int"),
        ("own.loads=[1", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        part_command_line([argument], "own", Own)
    assert message in str(caught.value)
