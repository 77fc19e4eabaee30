"""What `bench throughput` and `bench latency` share: a model in either world, without a server.

Knows flags, the config that they make, and how a batch of requests is served: by the real engine's
`LLM`, or by a simulation of the same requests. Prompts are token ids that mean nothing.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig

from engine.workload_tokens import WorkloadTokens
from experiments.assemble import Assembly, part
from experiments.bench.prompts import FIRST_TOKEN
from experiments.flag_parser import FlagParser
from experiments.program import run_program
from experiments.run import compose_config
from workbench.errors import WorkbenchError
from workbench.metrics import RunResult
from workbench.sampling_params import SamplingParams
from workbench.workload.base import ListWorkload, WorkloadRequest

# flag -> (the setting that it stands for, type, help)
SETTINGS: dict[str, tuple[str, type, str]] = {
    "--max-model-len": ("scheduler.max_model_len", int, "tokens of a request at most"),
    "--max-num-seqs": ("scheduler.max_num_seqs", int, "requests in a batch at most"),
    "--max-num-batched-tokens": ("scheduler.max_num_batched_tokens", int, "tokens in a step"),
    "--block-size": ("cache.block_size", int, "tokens in a KV block"),
    "--num-gpu-blocks-override": ("cache.num_gpu_blocks_override", int, "KV blocks"),
    "--gpu-memory-utilization": ("cache.gpu_memory_utilization", float, "share of a GPU's memory"),
    "--dtype": ("backend.dtype", str, "auto, float32, float16 or bfloat16 (engine)"),
    "--device": ("backend.device", str, "auto, cpu or cuda (engine)"),
    "--load-format": ("backend.load_format", str, "auto, safetensors or dummy (engine)"),
    "--kv-cache-dtype": ("backend.kv_cache_dtype", str, "auto or fp8 (engine)"),
}
ENGINE, SIMULATOR = "engine", "simulator"
Tell = Callable[[str], None]


class NotServedError(WorkbenchError):
    """Requests were not answered in full, so there is nothing to report."""


def add_world(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what serves, and with which settings."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="MODEL | GROUP=OPTION",
        help="folder of a checkpoint, or the name of a model (`workbench list model`); then"
        " settings as for `workbench run`",
    )
    parser.add_argument("--model", help="the same as MODEL")
    parser.add_argument(
        "--backend",
        choices=(ENGINE, SIMULATOR),
        default=ENGINE,
        help="the real engine on this machine, or a simulation (default: %(default)s)",
    )
    for flag, (name, kind, text) in SETTINGS.items():
        parser.add_argument(flag, type=kind, metavar="X", help=f"{text} [{name}]")
    parser.add_argument(
        "--enforce-eager",
        action="store_true",
        help="capture no CUDA graphs [backend.enforce_eager]",
    )
    parser.add_argument("--async-scheduling", action="store_true", help="schedule one step ahead")
    parser.add_argument(
        "--enable-prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep blocks of prompts for others that begin alike",
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--output-json", metavar="FILE", help="write the numbers here, too")


def make_parser(program: str, description: str, examples: str) -> FlagParser:
    """A command's parser, with the arguments of `add_world`."""
    made = FlagParser(
        prog=f"workbench bench {program}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_world(made)
    return made


def run_offline(
    parser: FlagParser,
    run: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None,
) -> int:
    """Run a command of its arguments, by default those of the process; the exit status."""
    return run_program(
        arguments,
        parser.format_help().rstrip(),
        lambda argv: run(parser.parse_intermixed_args(argv)),
        failures=(NotServedError,),
    )


def compose(options: argparse.Namespace, *more: str) -> DictConfig:
    """The config of what was asked for. Raises Hydra's errors for words that make none."""
    words = [word for word in options.words if "=" in word]
    names = [word for word in options.words if "=" not in word]
    model = options.model or (names[0] if names else None)
    given = [*names[1:], *names[:1]] if options.model else names[1:]
    if given:
        raise WorkbenchError(f"{given[0]}: one model only; settings are written GROUP=OPTION")
    overrides = [f"backend={options.backend}", f"seed={options.seed}", *more]
    if model is not None:
        is_folder = Path(model).exists() or "/" in model
        overrides += ["model=hf_config", f"model.path={model}"] if is_folder else [f"model={model}"]
    for flag, (name, _, _) in SETTINGS.items():
        value = getattr(options, flag[2:].replace("-", "_"))
        if value is not None and not (options.backend == SIMULATOR and name.startswith("backend.")):
            overrides.append(f"{name}={value}")
    if options.enforce_eager and options.backend == ENGINE:
        overrides.append("backend.enforce_eager=true")
    if options.async_scheduling:
        overrides.append("scheduler.async_scheduling=true")
    if options.enable_prefix_caching is not None:
        overrides.append(
            f"cache.enable_prefix_caching={str(options.enable_prefix_caching).lower()}"
        )
    return compose_config([*overrides, *words])


@dataclass(frozen=True, slots=True)
class Served:
    """A batch that was served: its seconds, and the tokens that were answered."""

    seconds: float
    num_output_tokens: int


class World(Protocol):
    """Something that serves a batch of requests which are all there at once."""

    def serve(self, items: Sequence[WorkloadRequest]) -> Served:
        """Serve them to their end. Raises NotServedError if one does not get its answer."""
        ...

    def close(self) -> None: ...


class EngineWorld:
    """The real engine behind the `LLM` class, in real time.

    Args:
        config: Of a run with backend=engine.
        tell: Takes notes for the user, a line each.
    """

    def __init__(self, config: DictConfig, tell: Tell) -> None:
        from experiments.assemble_engine import EngineAssembly

        backend = part(config, "backend")
        assembly: EngineAssembly = backend.assemble(config)  # tells what is not installed
        from engine.input_processor import InputProcessor
        from engine.llm import LLM
        from engine.llm_engine import LLMEngine
        from engine.output_processor import OutputProcessor
        from engine.warm_up import warm_up

        for note in assembly.notes:
            tell(f"note: {note}")
        parts = assembly.parts
        warm_up(parts)
        vocab_size = parts.model.vocab_size
        inputs = InputProcessor(vocab_size, parts.core.scheduler.max_model_len)
        engine = LLMEngine(parts.core, inputs, OutputProcessor(), parts.cache_config)
        self._llm = LLM.from_engine(engine)
        self._executor = parts.executor
        self._tokens = WorkloadTokens(vocab_size - FIRST_TOKEN, config.seed)

    def serve(self, items: Sequence[WorkloadRequest]) -> Served:
        prompts = [
            {"prompt_token_ids": [FIRST_TOKEN + token for token in self._tokens.prompt(item)]}
            for item in items
        ]
        params = [
            SamplingParams(temperature=0.0, max_tokens=item.num_output_tokens, ignore_eos=True)
            for item in items
        ]
        start = time.perf_counter()
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - start
        counts = [len(output.outputs[0].token_ids) for output in outputs]
        for item, output, count in zip(items, outputs, counts, strict=True):
            if count != item.num_output_tokens:
                raise NotServedError(_missing(item, count, str(output.outputs[0].stop_reason)))
        return Served(seconds, sum(counts))

    def close(self) -> None:
        self._executor.shutdown()


class SimulatedWorld:
    """A simulation of each batch, with its own time.

    Args:
        config: Of a run with backend=simulator.
        tell: Takes notes for the user, a line each.
    """

    def __init__(self, config: DictConfig, tell: Tell) -> None:
        self._assembly = Assembly.from_config(config)
        for note in self._assembly.notes:
            tell(f"note: {note}")

    def serve(self, items: Sequence[WorkloadRequest]) -> Served:
        result: RunResult = self._assembly.start(ListWorkload(items)).run()
        records = {record.request_id: record for record in result.records}
        for item in items:
            record = records[item.request_id]
            if record.output_tokens != item.num_output_tokens:
                detail = record.finish_detail or record.finish_reason
                raise NotServedError(_missing(item, record.output_tokens, detail))
        end = max(record.finish_s or 0.0 for record in result.records)
        return Served(end, sum(record.output_tokens for record in result.records))

    def close(self) -> None:
        """Nothing is held."""


def _missing(item: WorkloadRequest, got: int, why: str) -> str:
    return (
        f"request {item.request_id!r} of {item.num_prompt_tokens} + {item.num_output_tokens} tokens"
        f" was answered with {got} ({why}): shorten it, or raise --max-model-len or the KV cache"
    )


def open_world(config: DictConfig, options: argparse.Namespace, tell: Tell) -> World:
    """The world that was asked for; loads the model."""
    return EngineWorld(config, tell) if options.backend == ENGINE else SimulatedWorld(config, tell)


def write_json(path: str | None, told: dict[str, Any]) -> None:
    """The numbers as a file, if one was named."""
    if path is not None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
