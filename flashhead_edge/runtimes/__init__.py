"""What executes a head: the protocol and one module per runtime.

Listing the runtimes imports none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flashhead_edge.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.runtimes.base import HeadRuntime

#: Runtime name -> "module:class"; the class has ``from_bundle(bundle, **options)``.
RUNTIMES = {
    "onnxruntime": "flashhead_edge.runtimes.onnxruntime:OnnxRuntimeHead",
    "openvino": "flashhead_edge.runtimes.openvino:OpenVinoHead",
    "reference": "flashhead_edge.runtimes.reference:ReferenceHead",
    "torch": "flashhead_edge.runtimes.torch:TorchHead",
    "tensorrt": "flashhead_edge.runtimes.tensorrt.runtime:TensorRtHead",
}


def open_head(bundle: Bundle, runtime: str = "onnxruntime", **options: Any) -> HeadRuntime:
    """Open the head of a bundle on a runtime.

    Args:
        bundle: An opened bundle.
        runtime: A name from :data:`RUNTIMES`.
        **options: Options of that runtime's ``from_bundle``.

    Returns:
        The runtime, ready to run.

    Raises:
        OptionError: There is no such runtime.
    """
    if runtime not in RUNTIMES:
        raise OptionError(f"There is no runtime {runtime!r}.", hint=did_you_mean(runtime, RUNTIMES))
    module, _, name = RUNTIMES[runtime].partition(":")
    head: HeadRuntime = getattr(importlib.import_module(module), name).from_bundle(bundle, **options)
    return head
