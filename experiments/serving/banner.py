"""What a server says of itself when it begins.

Knows words for people. It decides nothing.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.core_messages import CoreInfo
    from experiments.serving.core_spec import PlannedCore


def print_notes(notes: Iterable[str]) -> None:
    """Tell what was decided for the user, a line each."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Banner:
    """The lines that are printed once a core serves.

    Attributes:
        lines: What and where.
    """

    lines: tuple[str, ...]

    @classmethod
    def of(
        cls, info: "CoreInfo", planned: "PlannedCore", name: str, grpc_port: int | None = None
    ) -> "Banner":
        """Of a core that is ready; `{url}` stands for where the server will listen."""
        lines = [
            f"serving {name} at {{url}}/v1",
            f"  world     {_world(info, planned)}",
            f"  KV cache  {info.num_kv_blocks:,} blocks of {info.block_size} tokens"
            f"{', prefix caching' if info.enable_prefix_caching else ''}",
            f"  limits    {info.max_model_len:,} tokens a request, {info.max_num_seqs:,} requests"
            f" and {info.max_num_batched_tokens:,} tokens a step",
            "  pages     {url}/docs  {url}/view  {url}/metrics",
        ]
        if grpc_port is not None:
            lines.append(f"  gRPC      port {grpc_port}")
        return cls((*lines, "Ctrl-C ends it."))

    def show(self, url: str) -> None:
        """Print the lines of a server that listens there."""
        print("\n".join(self.lines).replace("{url}", url), flush=True)


def _world(info: "CoreInfo", planned: "PlannedCore") -> str:
    if planned.assembly is None:
        facts: dict[str, Any] = dict(info.facts)
        device = facts.get("device_name") or facts.get("device")
        return f"the real engine on {device}, {facts.get('dtype')}, {facts.get('weights')} weights"
    assembly, pace = planned.assembly, "in real time"
    if info.speed != 1:
        pace = f"at {info.speed:g} times real time"
    calibration = getattr(assembly.cost_model, "calibration", None)
    if calibration is None:
        prices = type(assembly.cost_model).__name__.removesuffix("CostModel").lower()
        where = f"{assembly.hardware.name}, steps priced by {prices}"
    else:
        facts = calibration.facts
        where = f"{facts.get('device_name') or facts.get('device')}, as it was measured"
    return f"the simulator {pace}: {assembly.model.name} on {where}; the answers are random words"
