"""The page of a capacity search: what serves most, what is cheapest, and why not more.

Knows the table of `results` and the charts beside it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from experiments.capacity.charts import latency_names
from experiments.capacity.results import Capacities, read_capacities
from experiments.report import sources
from experiments.report.metrics import seconds
from experiments.report.page import Chart, Headline, Section, Table, number, write_page
from experiments.report.run_page import config_sections, describe
from experiments.run_folder import CHARTS

REPORT = "report.html"
CAPTIONS = {
    "capacity": "The highest rate of arrivals within all objectives, the same for a GPU, and the "
    "cost of a million output tokens at that rate.",
    "latency_vs_rate": "Latency against the rate of arrivals. Filled points are within all "
    "objectives, hollow ones are not; the dashed line is the limit.",
    "cost_vs_latency": "Cost of a million output tokens against latency. Each point is a rate "
    "within the objectives, the large one the capacity. The grey steps are the Pareto front: the "
    "least cost for so much latency.",
}
NO_LIMIT = {"unbounded": "no rate failed"}
HOW = (
    "A rate passes if every objective holds over the requests after the warm-up, and if the "
    "backlog of unfinished requests does not grow while requests arrive. The highest rate that "
    "passes is found by doubling and bisection. Every rate sees the same requests with the same "
    "gaps, only faster or slower. A request that is not answered counts as one that waits for ever."
    "\n\nThe rates are simulated, so they are as good as the step times of the cost model that the "
    "config names. Chance is in them too: seed=0,1,2 shows how much."
)


def write_capacity_page(folder: Path, out: Path) -> None:
    """Writes the page from the files of a finished search, its charts included."""
    prices, source = _prices(folder)
    write_page_of(folder, out, read_capacities(folder, prices), prices, source)


def _prices(folder: Path) -> tuple[dict[str, float], str]:
    """The prices that the search was started with."""
    path = folder / sources.MULTIRUN
    config = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
    node = (
        OmegaConf.select(config, "hydra.callbacks.sweep")
        if isinstance(config, DictConfig)
        else None
    )
    if not isinstance(node, DictConfig):
        return {}, ""
    prices = OmegaConf.to_container(node.get("prices") or OmegaConf.create())
    given = {str(k): float(v) for k, v in prices.items()} if isinstance(prices, dict) else {}
    return given, str(node.get("price_source") or "")


def write_page_of(
    folder: Path, out: Path, capacities: Capacities, prices: Mapping[str, float], source: str
) -> None:
    """Writes the page of these results; the charts lie in the folder's `charts`."""
    table = capacities.table
    names = [str(name) for name in table["run"]] if len(table) else []
    first = folder / names[0] if names else None
    provenance = sources.read_provenance(first) if first else {}
    command = _as_typed(sources.sweep_command(folder, "experiments.capacity") or "")
    charts = [
        Chart(_caption(path.stem, capacities), path, f"Chart. {_alt(path.stem, table)}")
        for path in sorted((folder / CHARTS).glob("*.png"), key=_order)
    ]
    write_page(
        out,
        "Capacity within the objectives",
        [
            *_results(capacities),
            *([Section("Charts", charts=charts)] if charts else []),
            *_failed(capacities),
            Section("How it was found", f"{HOW}\n\n{_sizes(table)}"),
            *([_price_section(table, prices, source)] if len(table) else []),
            *(config_sections(first) if first else []),
        ],
        [command] if command else (),
        sources.facts({k: v for k, v in provenance.items() if k != "wall_s"}),
        headlines=_headlines(capacities),
        summary=_summary(capacities, first),
    )


def _as_typed(command: str) -> str:
    """The command as somebody would type it, not as it is handed to Hydra."""
    for inside, typed in (
        ("++capacity.slo.", "slo."),
        ("++hydra.callbacks.sweep.prices.", "price."),
        ("experiments.capacity -m", "experiments.capacity"),
    ):
        command = command.replace(inside, typed)
    return re.sub(r" '?\+\+hydra\.callbacks\.sweep\.price_source=(\"[^\"]*\"'?|\S+)", "", command)


def _order(path: Path) -> int:
    names = list(CAPTIONS)
    return names.index(path.stem) if path.stem in names else len(names)


def _summary(capacities: Capacities, first: Path | None) -> str:
    differs = ", ".join(capacities.varying) or "nothing"
    failed = f", {len(capacities.failed)} searches failed" if len(capacities.failed) else ""
    over = capacities.over_seeds
    count = "1 configuration" if len(over) == 1 else f"{len(over)} configurations"
    seeds = ", each with several seeds" if len(over) and (over["seeds"] > 1).any() else ""
    return (
        f"Objectives: {_objectives(capacities)}. {count}{seeds}{failed}; what differs "
        f"between them: {differs}." + (f"\n\nThe first: {describe(first)}" if first else "")
    )


def _objectives(capacities: Capacities) -> str:
    """The limits of all configurations, and what else some of them limit."""
    shared = capacities.objectives
    limits = [f"{_name(name)} ≤ {_limit(name, value)}" for name, value in shared.items()]
    limits += [
        f"{_name(name)} not the same for all" for name in capacities.limited if name not in shared
    ]
    return ", ".join(limits) or "none"


def _name(objective: str) -> str:
    latency, _, statistic = objective.partition("_")
    return objective if not statistic else f"{latency.upper()} {statistic}"


def _limit(objective: str, value: float) -> str:
    return f"{value:.4g}" if objective == "attainment" else seconds(value)


def _headlines(capacities: Capacities) -> list[Headline]:
    table = capacities.over_seeds
    if table.empty:
        return []
    arrivals = f"{table['arrivals'].iloc[0]}/s"
    made = []
    for column, name, unit, most, meaning in (
        ("rate_per_s", "Highest capacity", arrivals, True, "all objectives hold up to this rate"),
        ("rate_per_gpu_per_s", "Highest capacity of a GPU", arrivals, True, "the same for one GPU"),
        (
            "cost_per_million_output_tokens",
            "Cheapest million output tokens",
            "US$",
            False,
            "at its capacity, all hours paid",
        ),
    ):
        values = pd.to_numeric(table[column], errors="coerce")
        if (values > 0).any():
            best = values.idxmax() if most else values[values > 0].idxmin()
            value = f"{number(float(values[best]))} {unit}"
            mean = f" (mean of {table['seeds'][best]} seeds)" if table["seeds"][best] > 1 else ""
            made.append(Headline(name, value, f"{table['label'][best]}: {meaning}{mean}"))
    return made


def _results(capacities: Capacities) -> list[Section]:
    table = capacities.table
    if table.empty:
        return []
    names = latency_names(capacities.limited)
    columns = ["configuration", f"capacity ({table['arrivals'].iloc[0]}/s)", "GPUs",
               "output tokens/s", "US$/M output tokens",
               *(f"{_name(n)} at it" for n in names), *(f"{_name(n)} above it" for n in names),
               "limited by"]  # fmt: skip
    rows = [
        [
            row["label"], row["rate_per_s"], row["gpus"], row["output_tokens_per_s"],
            row["cost_per_million_output_tokens"],
            *(_latency(row.get(n)) for n in names),
            *(_latency(row.get(f"above_{n}")) for n in names),
            _limits_in_words(row["limited_by"]) or NO_LIMIT.get(str(row["status"])),
        ]
        for row in table.to_dict("records")
    ]  # fmt: skip
    shown = Table("Capacity of each configuration; capacity.csv has more", columns, rows)
    text = "At it: at the rate found. Above it: at the lowest rate tried that does not pass."
    tables = [*_chance(capacities), shown]
    return [Section("Results", f"{text}\n\n{_remarks(table)}", tables)]


def _chance(capacities: Capacities) -> list[Table]:
    """What the seeds make of it, if there are several."""
    table = capacities.over_seeds
    if not (table["seeds"] > 1).any():
        return []
    columns = ["configuration", "seeds", f"capacity ({table['arrivals'].iloc[0]}/s)", "lowest",
               "highest", "US$/M output tokens", "lowest cost", "highest cost"]  # fmt: skip
    rate, cost = "rate_per_s", "cost_per_million_output_tokens"
    names = ["label", "seeds", rate, f"{rate}_low", f"{rate}_high"]
    names += [cost, f"{cost}_low", f"{cost}_high"]
    rows = [[row[name] for name in names] for row in table.to_dict("records")]
    return [Table("Means over the seeds, and how far they are apart", columns, rows)]


def _limits_in_words(names: Any) -> str:
    return ", ".join(_name(name) for name in _text(names).split(", ") if name)


def _latency(value: Any) -> str | None:
    return None if value is None or pd.isna(value) else seconds(float(value))


def _remarks(table: pd.DataFrame) -> str:
    """What a reader has to know of single rows, a paragraph each."""
    rows = table.to_dict("records")
    lines = [
        f"{row['label']}: no rate passes, even without load: {row['why_not_more']}."
        for row in rows
        if row["status"] == "none"
    ]
    lines += [
        f"{row['label']}: a higher rate passes again ({row['passes_again_per_s']}/s); the capacity "
        "given is below the first rate that fails."
        for row in rows
        if _text(row.get("passes_again_per_s"))
    ]
    if short := dict.fromkeys(str(row["group"]) for row in rows if _is_short(row)):
        lines.append(
            "Requests arrive for less than ten times what the slowest tenth of them takes, so the "
            f"run is short: {'; '.join(short)}. Raise capacity.requests_per_replica."
        )
    extrapolated = (row for row in rows if (row.get("extrapolated_steps") or 0) > 0)
    if far := dict.fromkeys(str(row["group"]) for row in extrapolated):
        lines.append(f"Some steps were priced outside of the cost model's data: {'; '.join(far)}.")
    return "\n\n".join(lines)


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)


def _is_short(row: Mapping[str, Any]) -> bool:
    """Whether a simulation at the capacity was too short to be called steady."""
    span, stay = row.get("arrivals_s"), row.get("e2e_p90")
    known = span is not None and stay is not None and not pd.isna(span) and not pd.isna(stay)
    return known and float(span or 0) < 10 * float(stay or 0)


def _sizes(table: pd.DataFrame) -> str:
    """How many requests a simulation has: what the config says may be set aside for a search."""
    if table.empty:
        return ""
    sizes = " or ".join(f"{int(n):,}" for n in sorted(table["requests"].unique()))
    total = int(table["simulations"].sum())
    return f"Each of the {total:,} simulations has {sizes} requests."


def _failed(capacities: Capacities) -> list[Section]:
    if capacities.failed.empty:
        return []
    rows = [[r["label"], r["status"], r["error"]] for r in capacities.failed.to_dict("records")]
    table = Table("Why", ["configuration", "what", "why"], rows)
    return [Section("Configurations without a result", tables=[table])]


def _price_section(table: pd.DataFrame, prices: Mapping[str, float], source: str) -> Section:
    used = sorted(set(map(str, table["hardware_name"])))
    rows = [[name, prices.get(name)] for name in used]
    text = (
        f"{source}. " if source else ""
    ) + "What a GPU costs depends on where it is rented or how it was bought: give your own with "
    text += "price.GPU=DOLLARS. A GPU without a price has no cost in any table."
    return Section("Prices", text, [Table("US dollars", ["GPU", "for an hour"], rows)])


def _caption(name: str, capacities: Capacities) -> str:
    over = capacities.over_seeds
    several = len(over) > 0 and bool((over["seeds"] > 1).any())
    first = " Of several seeds the first is drawn." if several else ""
    return CAPTIONS.get(name, name) + (first if name != "capacity" else "")


def _alt(name: str, table: pd.DataFrame) -> str:
    """What is to be seen, in numbers."""
    if name != "capacity" or table.empty:
        return CAPTIONS.get(name, name)
    told = "; ".join(
        f"{row['label']}: {number(float(row['rate_per_s']))} a second"
        for row in table.to_dict("records")
    )
    return f"{CAPTIONS[name]} {told}."
