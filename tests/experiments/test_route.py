"""`workbench route`: the simulator's policies by its words, flags, keys, one line of error."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from engine.router.api_keys import ApiKey
from engine.router.settings import RouterSettings
from experiments.assemble import part
from experiments.route import (
    FLAGS,
    default_of,
    main,
    make_parser,
    make_policy,
    make_settings,
    read_keys,
)
from experiments.run import compose_config
from experiments.schema import CONF_DIR
from tests.engine.router.fakes import BOUND_S, FakeServer
from workbench.errors import ConfigError
from workbench.router import LongestPrefix, RoundRobin

POLICIES = sorted(file.stem for file in (CONF_DIR / "router").glob("*.yaml"))


@pytest.mark.parametrize("name", POLICIES)
def test_the_policy_is_the_simulators_own(name: str) -> None:
    ours = make_policy([f"router={name}", "seed=7"])
    simulators = part(compose_config([f"router={name}", "seed=7"]), "router")
    assert type(ours) is type(simulators)
    states = [
        {k: v.getstate() if k == "_random" else v for k, v in vars(policy).items()}
        for policy in (ours, simulators)
    ]
    assert states[0] == states[1]


def test_settings_of_the_policy() -> None:
    assert type(make_policy([])) is RoundRobin
    policy = make_policy(["router=longest_prefix", "router.cache_threshold=0.5"])
    assert type(policy) is LongestPrefix
    assert vars(policy)["_cache_threshold"] == 0.5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "needs a backend"),
        (["--backend", "nonsense"], "'nonsense' is no URL"),
        (["--backend", "http://a:1", "router=nope"], "it is one of: least_outstanding"),
        (["--backend", "http://a:1", "router.nope=1"], "no such parameter"),
        (
            ["--backend", "http://a:1", "router=load_kv", "router.kv_weight=-1"],
            "router.kv_weight=-1",
        ),
        (["--backend", "http://a:1", "cache.block_size=2"], "router.NAME"),
        (["--backend", "http://a:1", "--max-queue", "-1"], "--max-queue -1 must be at least 0"),
        (["--backend", "http://a:1", "--health-interval", "0"], "--health-interval 0"),
        (["--backend", "http://a:1", "--max-queue", "many"], "--max-queue"),
        (["--backend", "http://a:1", "--port", "70000"], "no port"),
        (["--backend", "http://a:1", "--forwarded-allow-ips", "no"], "--forwarded-allow-ips 'no'"),
        (["--nonsense"], "--nonsense"),
        (["--backend", "http://a:1", "--api-keys", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert told in said
    assert said.count("\n") == 1


def test_help_names_every_flag_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(flag.name in text for flag in FLAGS)
    assert "keys.yaml" in text


def test_flags_become_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_ADMIN_KEY", "sk-admin")
    words = ["--max-concurrency", "3", "--health-path", "/ready", "router=random", "--block-size=8"]
    words += ["--forwarded-allow-ips", "10.0.0.1, 10.1.0.0/16,"]
    options = make_parser().parse_intermixed_args([*words, "seed=1"])
    settings = make_settings(options)
    assert settings.queue.max_concurrency == 3
    assert settings.health.path == "/ready"
    assert settings.prompt.block_size == 8
    assert settings.trusted_proxies == ("10.0.0.1", "10.1.0.0/16")
    assert settings.admin_key == "sk-admin"
    assert settings.max_retries == RouterSettings().max_retries
    assert options.overrides == ["router=random", "seed=1"]


def test_every_flag_is_a_field() -> None:
    assert len({(flag.part, flag.field) for flag in FLAGS}) == len(FLAGS)
    for flag in FLAGS:
        value = default_of(flag)
        assert value is None or isinstance(value, flag.kind)


def test_keys_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(
        "keys:\n- {name: a, key: sk-a, requests_per_second: 5}\n- {name: b, key: sk-b}\n"
    )
    assert read_keys(file) == [
        ApiKey(name="a", key="sk-a", requests_per_second=5),
        ApiKey(name="b", key="sk-b"),
    ]
    assert read_keys(None) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a list under 'keys'"),
        ("keys: []", "a list under 'keys'"),
        ("keys: [x]", "key 1 needs a name and a key"),
        ("keys: [{name: a, key: k}, {name: b}]", "key 2 needs a name and a key"),
        ("keys: [{name: a, key: k, rps: 3}]", "no setting 'rps'"),
        ("keys: [{name: a, key: 3}]", "key=3 must be of type str"),
        ("keys: [{name: a, key: k, requests_per_second: 0}]", "requests_per_second=0"),
        ("keys: [{name: a, key: k}, {name: a, key: l}]", "given to two"),
        ("keys: [", "no YAML"),
    ],
)
def test_bad_files_of_keys(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_keys(file)


def test_the_program_serves_until_it_is_told_to_end() -> None:
    async def test() -> None:
        async with asyncio.timeout(BOUND_S * 3), aiohttp.ClientSession() as client:
            server = FakeServer("s0")
            await server.start()
            words = ["--backend", server.url + "/v1", "router=longest_prefix", "--port", "0"]
            router = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "experiments.route", *words,
                stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."},
            )  # fmt: skip
            assert router.stdout is not None
            line = (await router.stdout.readline()).decode()
            assert "LongestPrefix, 1 of 1 backends up" in line
            url = line.split()[2].rstrip(":")
            async with client.post(url + "/v1/completions", json={"prompt": "x"}) as answer:
                assert (await answer.json())["from"] == "s0"
            router.send_signal(signal.SIGTERM)
            assert await router.wait() == 0
            await server.stop()

    asyncio.run(test())
