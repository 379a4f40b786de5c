"""The plugin of vLLM: models whose architecture is ``FlashHead...`` get the two-stage head.

vLLM finds :func:`register` through the entry point ``vllm.general_plugins``, in every process. Importing this package
imports neither vLLM nor torch.
"""

from __future__ import annotations


def register() -> None:
    """Make the architectures known to vLLM; called in every process of vLLM, as often as it likes."""
    from flashhead_edge.runtimes.vllm.registration import register_architectures

    register_architectures()
