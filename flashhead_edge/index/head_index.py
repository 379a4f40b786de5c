"""The index of a head: which tokens share a cluster, and what stands for each cluster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class HeadIndex:
    """Clusters, centroids and statistics of one head, independent of any runtime.

    A *slot* is a place in the table ``[T, C]``: first the K clusters that stage 1 chooses from, then A / C clusters
    of always-scored tokens, opened at every step. No token stands in two slots: one that is always scored leaves
    a hole in the cluster it came from.

    Attributes:
        token_order: Token id in each slot, -1 for padding, [T, C] int32.
        centroids: Row that stands for each cluster in stage 1, [K, H] float32.
        centroid_bias: Bias that stands for each cluster in stage 1, [K] float32.
        selection_offset: Added to the centroids' products and biases when clusters are chosen, and only then, [K]
            float32: from the logarithm of the members' mean exponential to their greatest product.
        cluster_variance: Calibrated variance of the error of product and bias as that logarithm, [K] float32.
        vocab_size: V.
        projection: Orthonormal columns [H, r] float32 in whose span the centroids lie, or None where they may lie
            anywhere: stage 1 can then project the state and score :attr:`narrow_centroids`.
    """

    token_order: npt.NDArray[np.int32]
    centroids: npt.NDArray[np.float32]
    centroid_bias: npt.NDArray[np.float32]
    selection_offset: npt.NDArray[np.float32]
    cluster_variance: npt.NDArray[np.float32]
    vocab_size: int
    projection: npt.NDArray[np.float32] | None = None

    @property
    def narrow_centroids(self) -> npt.NDArray[np.float32]:
        """What stage 1 scores the projected state with, [K, r]; the centroids [K, H] where there is no projection."""
        return self.centroids if self.projection is None else self.centroids @ self.projection

    @property
    def num_clusters(self) -> int:
        """K, the clusters that stage 1 scores."""
        return int(self.centroids.shape[0])

    @property
    def cluster_size(self) -> int:
        """C, the slots of a cluster."""
        return int(self.token_order.shape[1])

    @property
    def hidden_size(self) -> int:
        """H, the length of a row."""
        return int(self.centroids.shape[1])

    @property
    def num_always_clusters(self) -> int:
        """A / C, the clusters that are opened at every step."""
        return int(self.token_order.shape[0]) - self.num_clusters

    @cached_property
    def always_scored(self) -> npt.NDArray[np.int32]:
        """Ids scored at every step, ascending, [<= A] int32."""
        ids = self.token_order[self.num_clusters :].ravel()
        return np.sort(ids[ids >= 0])

    @cached_property
    def slot_of_token(self) -> npt.NDArray[np.int32]:
        """Slot ``t * C + c`` of every token, [V] int32: the inverse of ``token_order``."""
        order = self.token_order.ravel()
        slots = np.full(self.vocab_size, -1, dtype=np.int32)
        filled = np.flatnonzero(order >= 0)
        slots[order[filled]] = filled
        return slots

    def num_candidates(self, num_probes: int) -> int:
        """M, the slots scored exactly when P clusters are opened."""
        return (num_probes + self.num_always_clusters) * self.cluster_size

    def rows_scored(self, num_probes: int) -> int:
        """K + M, all rows that a step multiplies with the hidden state."""
        return self.num_clusters + self.num_candidates(num_probes)

    def save_pretrained(
        self, save_directory: str | Path, *, push_to_hub: bool = False, repo_id: str | None = None, **push: Any
    ) -> None:
        """Write the index into a folder, as ``index.safetensors``.

        Args:
            save_directory: The folder, made where there is none.
            push_to_hub: Upload it too.
            repo_id: Repository to upload to; None for one of the folder's name.
            **push: As for :meth:`push_to_hub`.
        """
        from flashhead_edge.index.hub import save_to_folder

        save_to_folder(self, Path(save_directory))
        if push_to_hub:
            self.push_to_hub(repo_id or Path(save_directory).name, **push)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, subfolder: str | None = None, **download: Any
    ) -> HeadIndex:
        """Read an index from a folder or from the Hub; that of a published model too.

        Args:
            pretrained_model_name_or_path: A folder, or ``org/name``.
            subfolder: Where in it the index is; None looks where ``flash_head_cache_dir`` of config.json says, else at
                its top.
            **download: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and what else
                ``huggingface_hub.hf_hub_download`` takes.

        Raises:
            BundleError: There is no index, or it is damaged.
        """
        from flashhead_edge.index.hub import load_from

        return load_from(pretrained_model_name_or_path, subfolder=subfolder, **download)

    def push_to_hub(self, repo_id: str, **push: Any) -> str:
        """Upload the index to the Hub.

        Args:
            repo_id: ``org/name``; the repository is made where there is none.
            **push: ``subfolder``, ``commit_message``, ``private``, ``token``, ``branch`` and ``create_pr``.

        Returns:
            URL of the commit.
        """
        from flashhead_edge.index.hub import push as upload

        return upload(self, repo_id, **push)

    def reduction(self, num_probes: int) -> float:
        """V / rows scored."""
        return self.vocab_size / self.rows_scored(num_probes)
