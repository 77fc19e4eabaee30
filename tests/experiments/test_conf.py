"""Every yaml composes, and what it names can be built."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from experiments.assemble import Assembly
from experiments.explain import explain
from experiments.instantiate import build, factory
from experiments.run import compose_config
from experiments.schema import (
    CONF_DIR,
    DATACLASSES,
    RunSettings,
    group_options,
    run_settings,
    settings,
)
from workbench.errors import ConfigError, WorkbenchError

GROUPS = group_options()
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]
BUNDLES = ("experiment", "variant")
PER_REPLICA = ("queue", "batch_policy", "victim", "eviction")
SWEEPS = sorted(GROUPS["experiment"])


def test_the_listing_knows_every_file() -> None:
    files = {(p.parent.name, p.stem) for p in CONF_DIR.glob("*/*.yaml")}
    assert files - {("local", "default")} == set(OPTIONS)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{g}={o}" for g, o in OPTIONS])
def test_every_option_says_what_it_is(group: str, option: str) -> None:
    text = (CONF_DIR / group / f"{option}.yaml").read_text()
    assert GROUPS[group][option] or text.startswith("defaults:"), "no comment in the first lines"
    if group == "experiment":
        assert "experiments.run" in text.split("defaults:")[0], "does not say how to run it"


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{g}={o}" for g, o in OPTIONS])
def test_every_option_composes_and_builds(
    group: str, option: str, request: pytest.FixtureRequest
) -> None:
    config = compose_config([f"{group}={option}"])
    run_settings(config)
    if group in DATACLASSES:
        settings(config, group)
    elif group in BUNDLES:
        _check_policies(config)
    elif missing := sorted(OmegaConf.missing_keys(config[group])):
        with pytest.raises(MissingMandatoryValue) as caught:
            build(config[group], group)
        assert f"{missing[0]} is not set" in explain(caught.value)
    elif group == "workload":
        _check_workload(config, request)
    elif group == "cost_model":
        _check_cost_model(config)
    elif group in PER_REPLICA:
        factory(config[group], group)()
    else:
        build(config[group], group)


def _check_policies(config: DictConfig) -> None:
    for group in DATACLASSES:
        settings(config, group)
    for group in PER_REPLICA:
        factory(config[group], group)()
    build(config.router, "router")


def _check_workload(config: DictConfig, request: pytest.FixtureRequest) -> None:
    if "traces_dir" not in config.workload:
        assert build(config.workload, "workload").num_requests > 0
        return
    traces = Path(request.getfixturevalue("shared_dir")) / "traces"
    if not (traces / config.workload.path).is_file():
        pytest.skip(f"{traces / config.workload.path} is absent")
    config.traces_dir = str(traces)
    assert build(config.workload, "workload").num_requests > 0


def _check_cost_model(config: DictConfig) -> None:
    try:
        assert Assembly.from_config(config).cost_model is not None
    except WorkbenchError as error:
        if "aiconfigurator" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("experiment", SWEEPS)
def test_every_value_that_an_experiment_sweeps_over_composes(experiment: str) -> None:
    text = OmegaConf.load(CONF_DIR / "experiment" / f"{experiment}.yaml")
    params = OmegaConf.to_container(text.hydra.sweeper.params)
    assert isinstance(params, dict)
    columns = {key: [v.strip() for v in str(values).split(",")] for key, values in params.items()}
    for row in range(max(len(values) for values in columns.values())):
        chosen = [f"{key}={values[row % len(values)]}" for key, values in columns.items()]
        config = compose_config([f"experiment={experiment}", *chosen])
        run_settings(config)
        _check_policies(config)


def test_the_default_config_is_a_plain_config() -> None:
    config = compose_config()
    assert run_settings(config) == RunSettings(
        seed=0,
        traces_dir=config.traces_dir,
        charts=True,
        timeline=True,
        progress=True,
        fail_fast=False,
        resume=True,
    )
    assert Assembly.from_config(config).num_kv_blocks > 1000


def test_dataclass_defaults_are_said_once() -> None:
    config = compose_config()
    for group in ("scheduler", "cache", "cluster", "parallel"):
        assert settings(config, group) == type(settings(config, group))()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scheduler.max_num_seqs=0"], "scheduler.max_num_seqs=0 must be at least 1"),
        (["cache.gpu_memory_utilization=2"], "cache.gpu_memory_utilization=2.0"),
        (["scheduler.policy=priority"], "contradicts queue=fcfs"),
        (["scheduler.max_model_len=999999999"], "exceeds the"),
        (["model=llama3_70b"], "does not fit"),
        (["batch_policy=sarathi", "batch_policy.chunk_size=many"], "expected a whole number"),
        (["queue=fcfs", "+queue.slack=3"], "queue.slack: there is no such parameter"),
        (["workload.arrivals.rate=-1"], "workload.arrivals.rate is -1"),
        (["router=longest_prefix", "+router.cache_threshold=7"], "router.cache_threshold=7"),
        (["cluster.replicas=20000"], "cluster.replicas=20000 exceeds 10000"),
        (["cache.num_gpu_blocks_override=900000000"], "900000000 KV blocks exceed"),
        (["queue=shortest_job_first", "+queue.aging=nan"], "queue.aging=nan: expected a finite"),
        (["workload.arrivals.rate=inf"], "workload.arrivals.rate=inf: expected a finite"),
        (["scheduler.watermark=nan"], "scheduler.watermark=nan must be a finite number"),
        (
            ["scheduler.preemption_mode=swap", "cache.sliding_window=64"],
            "scheduler.preemption_mode=swap works with full attention only",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(WorkbenchError) as caught:
        _build_all(compose_config(overrides))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("model", "ModelConfig"),
        ("hardware", "HardwareConfig"),
        ("cost_model", "CostModel"),
        ("workload", "Workload"),
        ("router", "Router"),
        ("queue", "RequestQueue"),
        ("batch_policy", "BatchPolicy"),
        ("victim", "VictimPolicy"),
        ("eviction", "EvictionPolicy"),
    ],
)
def test_a_class_of_another_kind_is_refused(group: str, kind: str) -> None:
    stranger = "workbench.workload.arrivals.BatchArrivals"
    config = compose_config()
    config[group] = {"_target_": stranger}
    with pytest.raises(ConfigError) as caught:
        _build_all(config)
    message = str(caught.value)
    assert message.startswith(f"{group}._target_={stranger}: it makes a BatchArrivals")
    assert f".{kind}: name one of that kind" in message


def _build_all(config: DictConfig) -> None:
    Assembly.from_config(config).start()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1.5", "seed=1.5"),
        ("charts=maybe", "charts='maybe'"),
        ("+foo=1", "foo: nothing reads"),
    ],
)
def test_the_top_of_the_config_is_checked(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_settings(compose_config([override]))


def test_the_scheduler_option_priority_brings_its_queue_and_victim() -> None:
    config = compose_config(["scheduler=priority"])
    assert config.queue._target_.endswith("PriorityQueue")
    assert config.victim._target_.endswith("LowestPriority")


def test_each_replica_gets_new_objects_through_and_through() -> None:
    make = factory(compose_config(["queue=shortest_job_first"]).queue, "queue")
    first, second = make(), make()
    assert first is not second
    assert first._predictor is not second._predictor
