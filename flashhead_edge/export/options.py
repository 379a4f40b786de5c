"""What a user can choose of an export, checked before anything long starts."""

from __future__ import annotations

from dataclasses import dataclass, field

from flashhead_edge.errors import OptionError, did_you_mean
from flashhead_edge.export.calibration import BUILTIN
from flashhead_edge.export.head_tables import AUTO
from flashhead_edge.export.tensorrt_dense import DENSE_PRECISIONS
from flashhead_edge.export.tensorrt_head import TensorRtOptions
from flashhead_edge.export.tensorrt_rows import check_precision
from flashhead_edge.export.tensorrt_states import Int8States
from flashhead_edge.index.build import IndexOptions

CENTROID_PRECISIONS = ("int4", "int8", "fp32")
CLUSTER_PRECISIONS = (AUTO, "fp16", "fp32")
#: Precisions of the head for TensorRT only, and what ``head.onnx`` has in their place: the next that is not coarser.
_PORTABLE = {"centroid": {"fp8": "int8", "fp16": "fp32"}, "cluster": {"int8": "fp16", "fp8": "fp16"}}
LOW_BIT_ROWS = ("int8", "int4")
BODY_PRECISIONS = ("int4", "int8", "fp32")
TARGETS = ("ort", "tensorrt", "all")

#: A vocabulary this large is scored through a smaller part of itself.
_LARGE_VOCABULARY = 100_000
_REDUCTION_LARGE, _REDUCTION_SMALL = 13.0, 9.5


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        index: How the head is clustered.
        num_probes: P, or None for as many as the default reduction allows.
        centroid_precision: "int4", "int8" or "fp32"; for TensorRT also "fp16" or "fp8".
        cluster_precision: "fp16", "fp32", or "auto" for int8 where the rows are stored so, else "fp16"; for TensorRT,
            where "auto" is "fp16", also "int8" or "fp8".
        low_bit_rows: "int8" or "int4" for a second copy of the rows that the native library scores first, or None.
        body_precision: "int4", "int8", "fp32", or None for a bundle with the head alone.
        max_positions: Cap of the context in tokens, or None for the model's own.
        target: "ort"; or "tensorrt" or "all" for a head in the form of TensorRT too.
        tensorrt_max_batch: Greatest batch of an engine for TensorRT.
        tensorrt_weight_inputs: Whether weights are inputs of the head for TensorRT.
        tensorrt_dense: "fp16", "int8" or "int4" for a dense head for TensorRT too, or None.
        calibration: "builtin", "self", a text file, or a ``.safetensors`` file of states.
        device: torch device for the model and the clustering.
        offline: Never use the network.
        revision: Revision of a Hub model.
        trust_remote_code: Allow code that comes with the model to run.
    """

    index: IndexOptions = field(default_factory=IndexOptions)
    num_probes: int | None = None
    centroid_precision: str = "int8"
    cluster_precision: str = AUTO
    low_bit_rows: str | None = None
    body_precision: str | None = "int8"
    max_positions: int | None = 8192
    target: str = "ort"
    tensorrt_max_batch: int = TensorRtOptions.max_batch
    tensorrt_weight_inputs: bool = False
    tensorrt_dense: str | None = None
    calibration: str = BUILTIN
    device: str = "cpu"
    offline: bool = False
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown precisions and targets.

        Raises:
            OptionError: Names the option and what it can be.
        """
        if self.target in TARGETS and self.target != "ort":
            self.tensorrt()
        elif self.target == "ort":
            self._check_no_tensorrt()
        for name, value, known in (
            ("centroid precision", self.portable_centroids, CENTROID_PRECISIONS),
            ("cluster precision", self.portable_clusters, CLUSTER_PRECISIONS),
            ("precision of low-bit rows", self.low_bit_rows or LOW_BIT_ROWS[0], LOW_BIT_ROWS),
            ("body precision", self.body_precision or BODY_PRECISIONS[0], BODY_PRECISIONS),
            ("target", self.target, TARGETS),
        ):
            if value not in known:
                raise OptionError(f"There is no {name} {value!r}.", hint=did_you_mean(value, known))

    @property
    def portable_centroids(self) -> str:
        """Precision of the centroids in ``head.onnx``."""
        return _PORTABLE["centroid"].get(self.centroid_precision, self.centroid_precision)

    @property
    def portable_clusters(self) -> str:
        """Precision of the table of rows in ``head.onnx.data``, which a head for TensorRT reads too."""
        if self.cluster_precision == AUTO and self.target != "ort":
            return "fp16"
        return _PORTABLE["cluster"].get(self.cluster_precision, self.cluster_precision)

    def tensorrt(self, int8_states: Int8States | None = None) -> TensorRtOptions:
        """Options of the head for TensorRT.

        Args:
            int8_states: How states are rounded to int8, once calibration states are known.

        Raises:
            OptionError: TensorRT cannot have it so.
        """
        if self.tensorrt_dense is not None:
            check_precision("dense", self.tensorrt_dense, DENSE_PRECISIONS)
        return TensorRtOptions(
            centroid_precision=self.centroid_precision,  # type: ignore[arg-type]  # checked there
            cluster_precision="fp16" if self.cluster_precision == AUTO else self.cluster_precision,  # type: ignore[arg-type]
            max_batch=self.tensorrt_max_batch,
            weight_inputs=self.tensorrt_weight_inputs,
            int8_states=int8_states,
        )

    def _check_no_tensorrt(self) -> None:
        """Refuse choices that only a head for TensorRT can follow."""
        hint = "add --target tensorrt, or --target all"
        for name, value in (("centroid", self.centroid_precision), ("cluster", self.cluster_precision)):
            if value in _PORTABLE[name]:
                raise OptionError(f"Only TensorRT has the {name} precision {value!r}.", hint=hint)
        plain = (TensorRtOptions.max_batch, False, None)
        if (self.tensorrt_max_batch, self.tensorrt_weight_inputs, self.tensorrt_dense) != plain:
            raise OptionError("Options of TensorRT need a head for TensorRT.", found="--target ort", hint=hint)

    def probes(self, vocab_size: int) -> int:
        """P for a vocabulary: as given, or what the default reduction leaves after centroids and always-scored rows.

        Raises:
            OptionError: P or the cluster size is out of range.
        """
        clusters = self.index.num_clusters(vocab_size)
        if self.num_probes is None:
            reduction = _REDUCTION_LARGE if vocab_size >= _LARGE_VOCABULARY else _REDUCTION_SMALL
            size = -(-vocab_size // clusters)
            rows = int(vocab_size / reduction) - clusters - self.index.always_slots(vocab_size)
            return min(clusters, max(1, rows // size))
        if not 1 <= self.num_probes <= clusters:
            raise OptionError(
                "The number of probes is out of range.",
                found=self.num_probes,
                expected=f"1 to {clusters} (the number of clusters)",
                hint="leave --probes out for a default that fits the vocabulary",
            )
        return self.num_probes
