"""A GPU as numbers: memory, peak rates and links.

Knows what data sheets and drivers say. It does not know which share of a peak a kernel reaches:
that belongs to the cost models.
"""

from dataclasses import dataclass, fields, replace

from simulator.bounds import check_count, check_number
from workbench.errors import ConfigError

GIB = 2**30
_RATES = (
    "memory_bandwidth_gbps",
    "peak_tflops_fp16",
    "peak_tflops_bf16",
    "peak_tflops_fp8",
    "interconnect_bandwidth_gbps",
    "host_bandwidth_gbps",
    "internode_bandwidth_gbps",
)
_OPTIONAL = ("peak_tflops_bf16", "peak_tflops_fp8")
# a thousand times beyond any machine, and still far from where sums of times lose their digits
_SMALLEST, _LARGEST = 1e-6, 1e9
_LATENCIES = ("interconnect_latency_us", "host_latency_us", "internode_latency_us")


@dataclass(frozen=True, slots=True)
class HardwareConfig:
    """One GPU and its links. Bandwidths are in 1e9 bytes/s and for one direction.

    Attributes:
        name: Short name; the cost models look up measured efficiencies by it.
        memory_gb: Memory that the driver offers to programs, in 2**30 bytes; a little less than
            what is printed on the box.
        memory_bandwidth_gbps: Peak bandwidth of the device memory.
        peak_tflops_fp16: Dense matrix rate with 32-bit accumulation.
        peak_tflops_bf16: The same in bfloat16; None where the GPU has none (fp16 is then used).
        peak_tflops_fp8: Dense fp8 rate; None where the GPU has none.
        num_sms: Streaming multiprocessors (compute units at AMD).
        l2_cache_mb: Last-level cache on the chip, in 1e6 bytes.
        interconnect: "nvlink", "xgmi" or "pcie": what joins the GPUs of a node.
        interconnect_bandwidth_gbps: Of one GPU to its peers.
        interconnect_latency_us: Of one hop between two GPUs.
        host_bandwidth_gbps: Between the GPU and host memory; KV blocks are swapped over it.
        host_latency_us: Of one batch of copies to or from the host.
        gpus_per_node: GPUs that the interconnect joins; larger groups go over the network.
        internode_bandwidth_gbps: Of one GPU to another node.
        internode_latency_us: Of one message to another node.
        source: Where the numbers come from.

    Raises:
        ConfigError: A number that is not positive and finite, or is absurd.
    """

    name: str
    memory_gb: float
    memory_bandwidth_gbps: float
    peak_tflops_fp16: float
    num_sms: int
    interconnect_bandwidth_gbps: float
    host_bandwidth_gbps: float
    peak_tflops_bf16: float | None = None
    peak_tflops_fp8: float | None = None
    l2_cache_mb: float = 40.0
    interconnect: str = "nvlink"
    interconnect_latency_us: float = 0.2
    host_latency_us: float = 10.0
    gpus_per_node: int = 8
    internode_bandwidth_gbps: float = 50.0
    internode_latency_us: float = 5.0
    source: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            name = f"hardware.{field.name}"
            if field.name in ("name", "source", "interconnect"):
                if not isinstance(value, str):
                    raise ConfigError(f"{name}={value!r} must be a text")
            elif field.name in ("num_sms", "gpus_per_node"):
                check_count(name, value, at_most=10**5, of=self.name)
            elif value is not None or field.name not in _OPTIONAL:
                check_number(name, value, at_least=_SMALLEST, below=_LARGEST, of=self.name)
        if self.interconnect not in ("nvlink", "xgmi", "pcie"):
            raise ConfigError(
                f"hardware.interconnect={self.interconnect!r} must be one of nvlink, xgmi, pcie"
            )

    @property
    def memory_bytes(self) -> float:
        return self.memory_gb * GIB

    @property
    def memory_bandwidth(self) -> float:
        """Bytes per second."""
        return self.memory_bandwidth_gbps * 1e9

    @property
    def l2_cache_bytes(self) -> float:
        return self.l2_cache_mb * 1e6

    @property
    def host_bandwidth(self) -> float:
        """Bytes per second, one direction."""
        return self.host_bandwidth_gbps * 1e9

    def peak_flops(self, dtype: str) -> float:
        """Dense matrix rate in flop/s for weights of `dtype`.

        A GPU without bfloat16 runs such a model in fp16, as vLLM does when told to; one without
        fp8 units widens the weights and multiplies in 16 bits.
        """
        if dtype == "fp8" and self.peak_tflops_fp8 is not None:
            return self.peak_tflops_fp8 * 1e12
        if dtype == "float16" or self.peak_tflops_bf16 is None:
            return self.peak_tflops_fp16 * 1e12
        return self.peak_tflops_bf16 * 1e12

    def scaled(self, factor: float) -> "HardwareConfig":
        """The same GPU with every rate `factor` times as high and every latency as much shorter."""
        changes: dict[str, float] = {}
        for name in _RATES:
            value = getattr(self, name)
            if value is not None:
                changes[name] = value * factor
        for name in _LATENCIES:
            changes[name] = getattr(self, name) / factor
        return replace(self, **changes)  # type: ignore[arg-type]
