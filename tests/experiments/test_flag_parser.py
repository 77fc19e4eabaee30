"""Flags that are no flags: one line, with the one that was meant."""

import pytest

from experiments.bench.__main__ import main as bench
from experiments.flag_parser import FlagParser
from experiments.route import main as route
from workbench.errors import ConfigError


@pytest.fixture
def parser() -> FlagParser:
    made = FlagParser(prog="prog")
    made.add_argument("--request-rate", type=float)
    made.add_argument("words", nargs="*")
    return made


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--reqest-rate", "5"], "--reqest-rate: there is no such flag; did you mean --request-r"),
        (["--reqest_rate=5"], "--reqest_rate: there is no such flag; did you mean --request-rate?"),
        (["a", "--xyzzy"], "--xyzzy: there is no such flag; prog --help lists them"),
        (["--request-rate", "x"], "--request-rate: invalid float value: 'x'; prog --help"),
    ],
)
def test_a_wrong_word_is_told(parser: FlagParser, words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parser.parse_intermixed_args(words)
    assert str(error.value).startswith(told)
    assert "prog --help" in str(error.value)


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        (bench, ["serve", "--reqest-rate", "5"], "did you mean --request-rate? workbench bench s"),
        (bench, ["latency", "--bach-size", "5"], "did you mean --batch-size? workbench bench la"),
        (bench, ["throughput", "--num-prompt=x"], "invalid int value: 'x'"),
        (route, ["--bakend", "http://a:1"], "did you mean --backend? workbench route --help"),
    ],
)
def test_the_commands_tell_it_in_one_line(
    command: object, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(command)
    assert command(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err
