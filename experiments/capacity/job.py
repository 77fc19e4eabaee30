"""The search for the capacity of one configuration: config in, folder out.

Knows how the answers of a search come about: a rate passes if every objective is met and the
backlog did not grow. Keeps every simulation in the sweep's journal, so a search that was killed
goes on where it was. Hydra calls `task` for each configuration, in processes side by side.
"""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.assemble import Assembly
from experiments.capacity.journal import Journal
from experiments.capacity.probe import LIFETIMES, Load, Record, load_of, run_probe
from experiments.capacity.search import FOUND, NONE, Found, find_capacity
from experiments.capacity.settings import CAPACITY, CapacitySettings, capacity_settings
from experiments.explain import explain, is_expected
from experiments.provenance import Stopwatch, code_revision, provenance
from experiments.run_folder import (
    CONFIG,
    PROVENANCE,
    SUMMARY,
    RunFolder,
    fingerprint,
    write_atomically,
    write_json,
)
from experiments.schema import run_settings
from experiments.sweep import register_resolvers
from workbench.errors import ConfigError, WorkbenchError

register_resolvers()  # the worker processes of a launcher import this module first

PROBES = "probes.csv"
LOWEST = 1e-6  # times the workload's rate: requests come alone
HIGHEST = 2.0**20


def task(config: DictConfig) -> None:
    """Hydra's task function: the search of one configuration into its folder.

    A configuration that fails is recorded while the others go on, unless `fail_fast` is set.
    """
    hydra = HydraConfig.get()
    folder = RunFolder(Path(hydra.runtime.output_dir))
    name = _short(folder)
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    if config.resume and folder.is_finished(fingerprint(plain)):
        print(f"already done: {name}", flush=True)
        return
    try:
        summary = search_into(folder, config, Path(hydra.sweep.dir))
    except Exception as error:
        kind = "error" if is_expected(error) else "error in the program"
        print(f"{kind}: {explain(error)} [{name}]", file=sys.stderr, flush=True)
        if config.fail_fast:
            sys.exit(1)
        return
    print(f"done: {name}: {brief(summary)}", flush=True)


def _short(folder: RunFolder) -> str:
    """The name of a configuration: that of its folder without the hash."""
    return folder.path.name.rpartition("-")[0] or folder.path.name


def search_into(folder: RunFolder, config: DictConfig, sweep: Path) -> dict[str, Any]:
    """Searches and writes everything into the folder, `DONE` last. Returns the summary.

    On any error the folder keeps `error.txt` and `FAILED`, and the error passes on.
    """
    stopwatch = Stopwatch()
    folder.start()
    (folder.path / PROBES).unlink(missing_ok=True)
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        revision = code_revision()
        search = Search(config, sweep, label=_short(folder), revision=revision)
        summary = search.run()
        write_atomically(folder.path / PROBES, pd.DataFrame(search.rows()).to_csv(index=False))
        facts = provenance(revision=revision, stopwatch=stopwatch, seed=config.seed)
        write_json(folder.path / PROVENANCE, facts)
        write_json(folder.path / SUMMARY, summary)
        _write_config(folder, config)
        folder.finish(fingerprint(cast(Mapping[str, Any], plain)), revision)
    except Exception as error:
        folder.fail(explain(error), error)
        _write_config(folder, config)
        raise
    return summary


def _write_config(folder: RunFolder, config: DictConfig) -> None:
    """Late, because a folder that has a config and no marker would be taken for somebody else's."""
    plain = OmegaConf.to_container(config, resolve=True)
    write_atomically(folder.path / CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain)))


class Search:
    """The search of one configuration. Raises WorkbenchError for a config that cannot be."""

    def __init__(
        self, config: DictConfig, sweep: Path, *, label: str, revision: str | None = None
    ) -> None:
        self._settings: CapacitySettings = capacity_settings(config)
        self._objectives = self._settings.objectives
        run_config = OmegaConf.masked_copy(config, [str(k) for k in config if k != CAPACITY])
        run_settings(run_config)
        if not str(config.backend.get("_target_")).endswith(".SimulatorBackend"):
            raise ConfigError("backend: capacities are found by simulation: use backend=simulator")
        if config.get("uncertainty") is not None:
            raise ConfigError("uncertainty: a capacity is found without drawn errors: leave it out")
        self._assembly = Assembly.from_config(_sized(run_config, self._settings))
        config = self._assembly.config
        self._load: Load = load_of(config)
        plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
        self._journal = Journal(sweep, plain, self._settings.warmup, revision)
        if not config.resume:
            self._journal.forget()
        self._label = label
        self._asked: dict[float, Record] = {}
        self._tells = bool(config.progress)

    @property
    def copies(self) -> int:
        """Data-parallel ranks of which one is simulated and the others carry as much.

        In lock step every rank is simulated, as a replica.
        """
        ranks = int(self._assembly.parallel.data_parallel_size)
        return 1 if self._assembly.cluster.lock_step else ranks

    def run(self) -> dict[str, Any]:
        """Finds the capacity; the flat summary of it."""
        if self._journal.foreign:
            print(
                f"note: {self._label}: some simulations are by another revision of the code; "
                "resume=false runs them again",
                flush=True,
            )
        found = find_capacity(
            self._passes,
            1.0,
            lowest=LOWEST,
            highest=HIGHEST,
            tolerance=self._settings.tolerance,
            beyond=self._settings.beyond,
        )
        if found.status == FOUND:
            for share in self._settings.below:
                self._passes(found.rate * share)
        return self._summary(found)

    def rows(self) -> list[Record]:
        """Every simulation of this search, in order of the rate."""
        return [
            {"rate_per_s": self._rate(scale), "passes": not self._why(record), **_flat(record),
             "why": "; ".join(self._why(record))}
            for scale, record in sorted(self._asked.items())
        ]  # fmt: skip

    def _passes(self, scale: float) -> bool:
        if scale not in self._asked:
            record = self._journal.get(scale)
            if record is None:
                self._refuse_too_many()
                record = run_probe(self._assembly, self._load, scale, self._settings.warmup)
                self._journal.add(record)
            self._asked[scale] = record
            self._tell(scale, record)
        record = self._asked[scale]
        # a limit that is missed before the conversations are many is missed for sure
        if record.get("too_short") and not self._objectives.misses(record):
            raise WorkbenchError(self._too_short(record, scale))
        return not self._why(record)

    def _too_short(self, record: Record, scale: float) -> str:
        factor = LIFETIMES * record["follows_s"] / max(record["arrivals_s"], 1e-9)
        return (
            f"at {self._rate(scale):.4g} {self._load.arrivals}/s they begin for "
            f"{record['arrivals_s']:.3g} s and go on for {record['follows_s']:.3g} s: too few "
            f"to be steady: raise {CAPACITY}.requests_per_replica {math.ceil(factor)}-fold or more"
        )

    def _refuse_too_many(self) -> None:
        if len(self._asked) >= self._settings.max_simulations:
            raise WorkbenchError(
                f"no capacity after {len(self._asked)} simulations: raise "
                f"{CAPACITY}.max_simulations or {CAPACITY}.tolerance"
            )

    def _why(self, record: Record) -> list[str]:
        """Why a simulation does not pass, the weightiest reason first; empty if it does."""
        reasons = [
            self._objectives.explain(name, record) for name in self._objectives.misses(record)
        ]
        if self._grows(record):
            reasons.append(f"the backlog grows by {record['backlog_growth']:.1%} of what arrives")
        return reasons

    def _grows(self, record: Record) -> bool:
        return bool(record["backlog_growth"] > max(self._settings.growth, record["backlog_noise"]))

    def _rate(self, scale: float) -> float:
        return scale * self._load.rate * self.copies

    def _tell(self, scale: float, record: Record) -> None:
        if self._tells:
            why = self._why(record)
            verdict = f"fails ({why[0]})" if why else "passes"
            number = len(self._asked)
            print(f"  {self._label} #{number}: {self._rate(scale):.4g}/s {verdict}", flush=True)

    def _summary(self, found: Found) -> dict[str, Any]:
        assembly, copies = self._assembly, self.copies
        replicas = assembly.cluster.replicas
        at = self._asked.get(found.rate, {})
        above = self._asked.get(found.above or 0.0, {})
        missed = self._objectives.misses(above) if above else []
        limited_by = ", ".join([*missed, *(["backlog"] if above and self._grows(above) else [])])
        told = dict.fromkeys((*_TOLD, *self._settings.slo))
        tokens = {
            name: at[name] * copies if at.get(name) is not None else None
            for name in ("output_tokens_per_s", "total_tokens_per_s")
        }
        return {
            "status": found.status,
            "rate_per_s": self._rate(found.rate),
            "arrivals": self._load.arrivals,
            "above_rate_per_s": self._rate(found.above) if found.above else None,
            "hardware_name": assembly.hardware.name,
            "gpus": replicas * assembly.parallel.world_size * copies,
            "replicas": replicas,
            "ranks": copies,
            **tokens,
            **{name: at.get(name) for name in told},
            **{f"above_{name}": above.get(name) for name in told},
            **{f"limit_{name}": limit for name, limit in self._settings.slo.items()},
            "limited_by": limited_by,
            "why_not_more": "; ".join(self._why(above)) if above else "",
            "passes_again_per_s": " ".join(f"{self._rate(r):.4g}" for r in found.passes_again),
            "rate_scale": found.rate,
            "simulations": len(self._asked),
            "simulations_cpu_s": sum(r["cpu_s"] for r in self._asked.values()),
            "requests": self._load.requests,
            "arrivals_s": at.get("arrivals_s"),
            "max_num_batched_tokens": assembly.scheduler.max_num_batched_tokens,
            "num_kv_blocks": assembly.num_kv_blocks,
            "notes": " ".join(assembly.notes),
            "seed": assembly.config.seed,
        }


_TOLD = (
    "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99", "tpot_mean", "tpot_p50", "tpot_p90",
    "tpot_p99", "itl_p99", "e2e_mean", "e2e_p50", "e2e_p90", "e2e_p99", "queue_p99", "attainment",
    "backlog_growth", "preemptions", "prefix_hit_rate", "extrapolated_steps",
)  # fmt: skip


def _flat(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != "revision"}


def _sized(config: DictConfig, settings: CapacitySettings) -> DictConfig:
    """The config with as many requests as the settings ask for, where the workload can be asked."""
    each = settings.requests_per_replica
    if each is None or OmegaConf.select(config, "workload.num_requests") is None:
        return config
    copy = config.copy()
    OmegaConf.update(copy, "workload.num_requests", each * config.cluster.replicas)
    return copy


def brief(summary: Mapping[str, Any]) -> str:
    """The result in a few words."""
    if summary["status"] == NONE:
        return f"no rate at all: {summary['why_not_more']}"
    text = f"{summary['rate_per_s']:.4g} {summary['arrivals']}/s"
    if summary["status"] != FOUND:
        return f"at least {text}; no rate failed"
    return f"{text}, limited by {summary['limited_by'] or 'nothing'}"
