"""Made-up machines: steps with known prices, noise and drift."""

import math

import numpy as np

from simulator.calibration.jitter import Jitter
from workbench.step_profile import MeasuredStep, StepShape

LEVELS = (-0.12, -0.1, -0.07, -0.05, -0.02, 0.0, 0.02, 0.06, 0.09, 0.2, 0.3, 0.35)
NOISE = Jitter(LEVELS, LEVELS, lasting=(0.3, 0.0, 0.4, 0.0, 0.0), run_sd=0.03, num_runs=30)
HOST_S = 4e-4


def true_s(shape: StepShape) -> float:
    """Seconds of a step on the machine, its host included."""
    tokens = shape.num_tokens
    pairs = sum(query * (context + query / 2) for query, context in shape.prefills)
    device = 2e-3 + 2e-5 * tokens + 3e-5 * max(tokens - 64, 0)
    return device + 3e-8 * shape.decode_context + 4e-8 * pairs + HOST_S


def random_shape(rng: np.random.Generator) -> StepShape:
    """A step of up to 16 decodes and two chunks."""
    decodes = int(rng.integers(0, 17))
    chunks = [
        (int(rng.integers(2, 200)), int(rng.integers(0, 400))) for _ in range(rng.integers(0, 3))
    ]
    if not decodes and not chunks:
        decodes = 1
    context = int(decodes * rng.integers(10, 500))
    return StepShape(decodes, context, chunks, decodes + len(chunks))


def recorded(runs: int, steps: int, seed: int = 0, jitter: Jitter = NOISE) -> list[MeasuredStep]:
    """Recordings of runs on the machine."""
    found = []
    for number, child in enumerate(np.random.SeedSequence(seed).spawn(runs)):
        rng = np.random.default_rng(child)
        drift = math.exp(jitter.run_sd * rng.standard_normal())
        noise = jitter.sampler(rng)
        for _ in range(steps):
            shape = random_shape(rng)
            factor = drift * noise(bool(shape.prefills))
            step = MeasuredStep(shape, true_s(shape) * factor, HOST_S * factor, f"run/{number}")
            found.append(step)
    return found


def designed(seed: int = 1, number: int = 60) -> list[MeasuredStep]:
    """Steps that were timed alone, without a host."""
    rng = np.random.default_rng(seed)
    shapes = [random_shape(rng) for _ in range(number)]
    return [MeasuredStep(shape, true_s(shape) - HOST_S, source="grid") for shape in shapes]
