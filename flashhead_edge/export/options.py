"""What a user can choose of an export, checked before anything long starts."""

from __future__ import annotations

from dataclasses import dataclass, field

from flashhead_edge.errors import OptionError, did_you_mean
from flashhead_edge.export.calibration import BUILTIN
from flashhead_edge.index.build import IndexOptions

CENTROID_PRECISIONS = ("int4", "int8", "fp32")
CLUSTER_PRECISIONS = ("fp16", "fp32")
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
        centroid_precision: "int4", "int8" or "fp32".
        cluster_precision: "fp16" or "fp32".
        body_precision: "int4", "int8", "fp32", or None for a bundle with the head alone.
        max_positions: Cap of the context in tokens, or None for the model's own.
        target: "ort"; or "tensorrt" or "all" for a head in the form of TensorRT too.
        calibration: "builtin", "self", a text file, or a ``.safetensors`` file of states.
        device: torch device for the model and the clustering.
        offline: Never use the network.
        revision: Revision of a Hub model.
        trust_remote_code: Allow code that comes with the model to run.
    """

    index: IndexOptions = field(default_factory=IndexOptions)
    num_probes: int | None = None
    centroid_precision: str = "int8"
    cluster_precision: str = "fp16"
    body_precision: str | None = "int8"
    max_positions: int | None = 8192
    target: str = "ort"
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
        for name, value, known in (
            ("centroid precision", self.centroid_precision, CENTROID_PRECISIONS),
            ("cluster precision", self.cluster_precision, CLUSTER_PRECISIONS),
            ("body precision", self.body_precision or BODY_PRECISIONS[0], BODY_PRECISIONS),
            ("target", self.target, TARGETS),
        ):
            if value not in known:
                raise OptionError(f"There is no {name} {value!r}.", hint=did_you_mean(value, known))

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
