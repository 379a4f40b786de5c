"""What to install for the best runtime on a device."""

from __future__ import annotations

from dataclasses import dataclass

from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.platforms.packages import installed_onnx_runtimes
from flashhead_edge.runtimes.selector import CANDIDATES


@dataclass(frozen=True)
class Recommendation:
    """The best runtime for texts on a device.

    Attributes:
        runtime: Name of the runtime.
        provider: Execution provider of ONNX Runtime that it should use; None for other runtimes.
        reason: Why this one.
        install: Commands that install it, in order; empty where it is installed and works.
    """

    runtime: str
    provider: str | None
    reason: str
    install: tuple[str, ...]


def recommend(facts: DeviceFacts) -> Recommendation:
    """The first of the selector's candidates that suits the device, installed or not.

    Args:
        facts: The device.
    """
    suited = (item for item in CANDIDATES if "text" in item.purposes and item.only_if_asked(facts) is None)
    best = next(item for item in suited if item.unfit(facts) is None)
    if best.missing(facts) is None:
        return Recommendation(best.runtime, best.provider, best.because, ())
    installed = installed_onnx_runtimes(facts.packages)
    in_the_way = [name for name in installed if name not in best.packages or len(installed) > 1]
    uninstall = (f"pip uninstall -y {' '.join(in_the_way)}",) if in_the_way else ()
    return Recommendation(best.runtime, best.provider, best.because, (*uninstall, *best.install(facts)))
