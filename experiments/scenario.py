"""Reads a recorded scenario (format `sched-oracle/1`) and refuses what is not a whole one.

Knows which parts a file has, which rules may stand in its config, and what must agree within it.
Knows nothing of schedulers and compares no decision.
"""

import json
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError

FORMAT = "sched-oracle/1"
RULES = frozenset(
    {
        "admission_requires_full_prompt_fit",
        "block_size",
        "chunked_prefill",
        "hybrid_window",
        "long_prefill_token_threshold",
        "long_prefill_token_threshold_adaptive",
        "max_model_len",
        "max_num_active_seqs",
        "max_num_batched_tokens",
        "max_num_seqs",
        "num_usable_blocks",
        "pipeline_depth",
        "policy",
        "prefill_schedule_interval",
        "prefix_caching",
        "sliding_window",
        "spec_tokens",
        "watermark",
        "watermark_blocks",
    }
)
Scenario = dict[str, Any]


def read_scenario(path: Path) -> Scenario:
    """The scenario of a file.

    Raises:
        WorkbenchError: The file is no scenario, needs a rule that we do not have, contradicts
            itself, or stops before its requests have ended.
    """
    try:
        scenario = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WorkbenchError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(scenario, dict) or scenario.get("format") != FORMAT:
        raise WorkbenchError(f"{path}: format must be {FORMAT!r}")
    try:
        problem = _problem(scenario)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise not_whole(path, error) from error
    if problem is not None:
        raise WorkbenchError(f"{path}: {problem}")
    return scenario


def not_whole(path: Path, error: Exception) -> WorkbenchError:
    """The error of a file in which something is missing or is of another kind."""
    kind = type(error).__name__
    return WorkbenchError(
        f"{path}: not a whole {FORMAT} scenario ({kind}: {error}); record it again"
    )


def _problem(scenario: Scenario) -> str | None:
    """What is wrong with a scenario, and the cure; None if nothing is."""
    return (
        _unknown_rule(scenario["config"])
        or _wrong_request(scenario["requests"])
        or _wrong_steps(scenario["steps"])
        or _wrong_events(scenario)
        or _missing_end(scenario)
    )


def _unknown_rule(config: dict[str, Any]) -> str | None:
    if unknown := sorted(config.keys() - RULES):
        return (
            f"the scenario needs a rule that we do not know: config.{unknown[0]}="
            f"{config[unknown[0]]!r}; known are {', '.join(sorted(RULES))}"
        )
    wanted = int(config["watermark"] * (config["num_usable_blocks"] + 1))
    told = config.get("watermark_blocks", wanted)
    if told != wanted:
        return f"config.watermark_blocks={told}, but its watermark makes {wanted}; record it again"
    return None


def _wrong_request(requests: list[dict[str, Any]]) -> str | None:
    ids = [request["id"] for request in requests]
    twice = [name for name in ids if ids.count(name) > 1]
    return f"two requests have the id {twice[0]!r}; give each its own" if twice else None


def _wrong_steps(steps: list[dict[str, Any]]) -> str | None:
    if not steps:
        return "steps is empty, so nothing can be compared; record it again"
    for number, step in enumerate(steps):
        if step["step"] != number:
            return (
                f"step {step['step']} stands where step {number} belongs, and every step must be "
                "there; record it again"
            )
    return None


def _wrong_events(scenario: Scenario) -> str | None:
    """Where a step does not tell the arrivals and aborts that the input puts there."""
    requests, aborts = scenario["requests"], scenario["aborts"]
    for number, step in enumerate(scenario["steps"]):
        arrived = [r["id"] for r in requests if r["arrival_step"] == number]
        aborted = [a["id"] for a in aborts if a["step"] == number]
        for field, wanted in (("arrived", arrived), ("aborted", aborted)):
            told = step.get(field) or []
            if told != wanted:
                return (
                    f"step {number} {field}: the step says {told}, the input {wanted}; "
                    "record it again"
                )
    return None


def _missing_end(scenario: Scenario) -> str | None:
    """What a recording lacks that was cut off: it ends one empty step after the last finish."""
    steps = scenario["steps"]
    arrival = {r["id"]: r["arrival_step"] for r in scenario["requests"]}
    ended = {name for step in steps for name, _ in step.get("finished") or []}
    for abort in scenario["aborts"]:
        if arrival.get(abort["id"], len(steps)) <= abort["step"] < len(steps):
            ended.add(abort["id"])
    last = steps[-1]
    if missing := [name for name in arrival if name not in ended]:
        return (
            f"the recording stops with step {last['step']}, before {len(missing)} of "
            f"{len(arrival)} requests have ended ({', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}); record it to the end"
        )
    if any(last.get(field) for field in ("scheduled", "finished", "running", "waiting")):
        return (
            f"the recording stops with step {last['step']}, which is not empty: it must end one "
            "empty step after the last finish; record it to the end"
        )
    return None
