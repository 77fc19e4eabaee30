"""What a swept setting is called on an axis: words for people, with the unit.

Knows the names of settings. A setting that is not listed keeps its own name, with spaces.
"""

TITLES = {
    "acceptance_rate": "share of draft tokens accepted",
    "block_size": "block size (tokens)",
    "burstiness": "burstiness of arrivals (1 is Poisson)",
    "chunk_size": "chunk size (tokens in a step)",
    "concurrency": "users at a time",
    "gpu_memory_utilization": "share of GPU memory in use",
    "host_overhead_s": "host overhead (s in a step)",
    "long_prefill_token_threshold": "most prompt tokens of a request in a step",
    "max_model_len": "longest request (tokens)",
    "max_num_active_seqs": "most running requests",
    "max_num_batched_tokens": "token budget of a step (tokens)",
    "max_num_seqs": "most running requests",
    "num_gpu_blocks_override": "KV cache (blocks)",
    "num_requests": "requests of the workload",
    "num_speculative_tokens": "draft tokens in a step",
    "pipeline_parallel_size": "pipeline stages (GPUs)",
    "prefill_schedule_interval": "steps between prefills",
    "rate_scale": "arrivals, times the rate of the workload",
    "relative_error": "error of the predicted length (relative)",
    "replicas": "replicas",
    "swap_space_gib": "host memory for swapped KV (GiB)",
    "tensor_parallel_size": "tensor parallel GPUs",
    "watermark": "share of blocks kept free",
}
RATES = ("rate", "qps", "start_rate", "end_rate", "on_rate", "off_rate")


def is_rate(key: str) -> bool:
    """Whether a setting says how fast requests arrive."""
    return key.rpartition(".")[2] in (*RATES, "rate_scale")


def axis_title(key: str, arrivals: str = "requests") -> str:
    """The title of a dotted config key; `arrivals` is what arrives at a rate."""
    name = key.rpartition(".")[2]
    if name in TITLES:
        return TITLES[name]
    plain = name.replace("_", " ")
    if name in RATES:
        return f"arrival rate ({arrivals}/s)" if name in ("rate", "qps") else f"{plain} (1/s)"
    if name.endswith("_s"):
        return f"{plain.removesuffix(' s')} (s)"
    return plain
