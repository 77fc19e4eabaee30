"""What the suite has found, as one page: device, goals, kernels beside their peers, failures.

Knows the files of a suite's folder. Reads whatever is there: a page can be written at any time.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.gpu_suite.goals import GOALS, LEVELS, Measurements
from experiments.gpu_suite.parts import DEVICE, KERNELS, STEP_TABLE, STEP_TIMES, THROUGHPUT
from experiments.gpu_suite.suite import DONE, STATE

REPORT = "REPORT.md"
KEY = ("kind", "op", "case", "who")
Row = dict[str, Any]


def write_report(out: Path) -> str:
    """Write DIR/REPORT.md; its text."""
    kernels, steps = _latest(_lines(out / KERNELS)), _lines(out / STEP_TIMES)
    throughput = _lines(out / THROUGHPUT)
    text = "\n".join(
        [
            "# GPU suite",
            "",
            *_device(_json(out / DEVICE)),
            *_goals(Measurements(kernels, steps)),
            *_kernels([row for row in kernels if row["kind"] == "time"]),
            *_steps([row for row in steps if row["kind"] == "step"]),
            *_throughput(throughput),
            *_step_table(out / STEP_TABLE),
            *_failures(_json(out / STATE), kernels),
        ]
    )
    (out / REPORT).write_text(text + "\n", encoding="utf-8")
    return text


def _device(report: Mapping[str, Any]) -> list[str]:
    if not report:
        return ["The device was not measured.", ""]
    ceilings = report["ceilings"]
    packages = ", ".join(f"{name} {version}" for name, version in report["packages"].items())
    name = report.get("name", report["device"])
    dry = ["Dry run: toy sizes, and no number here means anything.", ""]
    return [
        *(dry if report["is_dry_run"] else ()),
        f"{name}; Python {report['python']}, {packages}, CUDA {report['cuda']}",
        "",
        f"Ceilings: copy {ceilings['copy_bytes_per_s'] / 1e9:,.0f} GB/s, "
        f"bf16 matmul {ceilings['matmul_flops_per_s'] / 1e12:,.0f} TFLOP/s",
        "",
    ]


def _goals(results: Measurements) -> list[str]:
    rows = []
    for goal in GOALS:
        value = goal.measure(results)
        levels = [goal.told(level) for level in goal.levels]
        rows.append([goal.item, goal.told(value), *levels, goal.verdict(value)])
    return _section("Goals", ["item", "measured", *LEVELS, "verdict"], rows)


def _kernels(rows: Iterable[Row]) -> list[str]:
    by_case: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        by_case.setdefault((row["op"], row["case"]), {})[row["who"]] = row
    table = []
    for (op, case), found in by_case.items():
        ours = found.pop("ours", {})
        table.append([op, case, *_own_numbers(ours), _peers(ours.get("us"), found)])
    head = ["operation", "case", "us", "GB/s", "of copy", "TFLOP/s", "of roofline", "peers"]
    note = "Behind a peer: its microseconds, and how many times ours it takes."
    return _section("Kernels", head, table, note)


def _own_numbers(row: Row) -> list[str]:
    if "us" not in row:
        return ["-"] * 5
    launches = "" if row["is_graph"] else " (with launches)"
    return [
        f"{row['us']:.1f}{launches}",
        f"{row['gb_per_s']:,.0f}",
        f"{100 * row['share_of_copy']:.0f} %",
        f"{row['tflops']:,.0f}" if row["flops"] else "-",
        f"{100 * row['share_of_roofline']:.0f} %",
    ]


def _peers(ours: float | None, peers: Mapping[str, Row]) -> str:
    parts = []
    for who, row in peers.items():
        if "us" not in row:
            parts.append(f"{who}: none ({row['why'].partition(':')[0]})")
        else:
            ratio = "" if ours is None else f" ({row['us'] / ours:.2f}x)"
            parts.append(f"{who} {row['us']:.1f}{ratio}")
    return "; ".join(parts)


def _steps(rows: Iterable[Row]) -> list[str]:
    table = [
        [
            row["op"],
            str(row["batch"]),
            str(row["context"]),
            *(f"{1e3 * row[name]:.2f}" for name in ("alone_s", "host_s", "pipelined_s", "floor_s")),
            f"{row['over_floor']:.2f}x",
            "yes" if row["shares_blocks"] else "",
        ]
        for row in rows
    ]
    head = ["model", "batch", "context", "alone ms", "host ms", "pipelined ms", "floor ms"]
    note = "The floor: all weights and all KV read once, at the copy bandwidth."
    return _section("Decode steps", [*head, "over floor", "KV shared"], table, note)


def _throughput(rows: Sequence[Row]) -> list[str]:
    table = [
        [
            row["op"],
            row["who"],
            f"{row['wall_s']:.1f}",
            f"{row['output_tokens_per_s']:,.0f}",
            f"{row['total_tokens_per_s']:,.0f}",
        ]
        for row in rows
    ]
    head = ["model", "who", "s", "output tokens/s", "all tokens/s"]
    note = "transformers gathers all KV before every layer: a weak baseline."
    return _section("Offline throughput", head, table, note)


def _step_table(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        count = sum(1 for _ in csv.DictReader(file))
    return ["## Step table", "", f"{count} points in {path.name}", ""]


def _failures(state: Mapping[str, Row], kernels: Iterable[Row]) -> list[str]:
    lines = [
        f"- {name}: {part['status']}, see logs/{name}.txt"
        for name, part in state.items()
        if part["status"] != DONE
    ]
    lines += [
        f"- {row['kind']} {row['op']} {row['case']} {row['who']}: {row['why']}"
        for row in kernels
        if "why" in row
    ]
    return ["## What failed", "", *(lines or ["Nothing."])]


def _section(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> list[str]:
    lines = [f"## {title}", ""]
    if not rows:
        return [*lines, "Not measured.", ""]
    if note:
        lines += [note, ""]
    grid = [head, ["---"] * len(head), *rows]
    return [*lines, *("| " + " | ".join(row) + " |" for row in grid), ""]


def _lines(path: Path) -> list[Row]:
    if not path.exists():
        return []
    return [row for line in path.read_text().splitlines() if (row := _parsed(line)) is not None]


def _latest(rows: Iterable[Row]) -> list[Row]:
    """The last row of each measurement: what failed is tried again."""
    return list({tuple(row[name] for name in KEY): row for row in rows}.values())


def _parsed(line: str) -> Row | None:
    # a process that was killed may have left half a line
    try:
        row: Row = json.loads(line)
    except ValueError:
        return None
    return row


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
