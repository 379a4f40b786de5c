"""The process that opens a session on one execution provider: a provider that crashes takes only this along.

``python -m flashhead_edge.platforms.provider_probe --list`` writes the providers of the installed ONNX Runtime as JSON;
with a provider's name it opens and runs a small model on that provider alone, as the runtimes do.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def probe(name: str) -> dict[str, Any]:
    """Open and run the small model on one provider; no node may fall back to another.

    Args:
        name: Execution provider by its ONNX Runtime name.

    Returns:
        ``loads``, and the ``reason`` where it does not.
    """
    import numpy as np

    from flashhead_edge.errors import FlashHeadError
    from flashhead_edge.platforms.probe_model import SIZE, probe_model
    from flashhead_edge.runtimes.session import open_session

    x = np.eye(SIZE, dtype=np.float32) * 2
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "probe.onnx"
        graph.write_bytes(probe_model())
        try:
            (y,) = open_session(graph, threads=1, providers=(name,)).run(None, {"x": x})
        except FlashHeadError as error:
            return {"loads": False, "reason": str(error.found or error.message)}
        except Exception as error:  # ONNX Runtime raises what its providers raise
            return {"loads": False, "reason": f"{type(error).__name__}: {error}"}
    if not np.allclose(y, x @ x + x, atol=1e-2):
        return {"loads": False, "reason": "the provider computed a wrong result"}
    return {"loads": True, "reason": None}


def main(arguments: list[str]) -> None:
    """List the providers, or try one."""
    report: Any
    if arguments == ["--list"]:
        import onnxruntime

        report = onnxruntime.get_available_providers()
    else:
        report = probe(arguments[0])
    sys.stdout.write(f"\n{json.dumps(report)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
