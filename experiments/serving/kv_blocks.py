"""How many KV blocks a simulated server has where its prices were measured on a real engine.

The engine that was calibrated had a cache of its own size: a server that is priced by the
calibration has the same, unless somebody says otherwise.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from simulator.calibration.calibration import Calibration

CALIBRATED = "simulator.cost_models.calibrated.CalibratedCostModel"


def with_calibrated_blocks(config: DictConfig) -> tuple[DictConfig, list[str]]:
    """The config with the calibrated engine's KV blocks, and what to say about it.

    Nothing is changed where the number was set, where another cost model prices the steps, or where
    the calibration tells of no cache with blocks of this size.
    """
    path = config.cost_model.get("path")
    if str(config.cost_model.get("_target_")) != CALIBRATED or not path:
        return config, []
    if config.cache.num_gpu_blocks_override is not None:
        return config, []
    facts = Calibration.load(Path(path)).facts
    num_blocks = facts.get("num_kv_blocks")
    if not isinstance(num_blocks, int) or facts.get("block_size") != config.cache.block_size:
        return config, []
    changed = config.copy()
    OmegaConf.set_readonly(changed, False)
    changed.cache.num_gpu_blocks_override = num_blocks
    return changed, [f"{num_blocks} KV blocks, as the engine had that {path} was measured on"]
