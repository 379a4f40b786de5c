"""Opening ONNX Runtime sessions: the providers that were asked for, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flashhead_edge import layout, native
from flashhead_edge.errors import BundleError, OptionalDependencyError, OptionError, RuntimeUnavailableError

if TYPE_CHECKING:
    import onnxruntime

CPU_PROVIDER = "CPUExecutionProvider"
#: Providers that run on NVIDIA GPUs.
CUDA_PROVIDERS = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})


def open_session(
    graph: Path,
    *,
    threads: int | None = None,
    providers: Sequence[str] = (CPU_PROVIDER,),
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Load a graph for execution.

    ONNX Runtime would fall back to the CPU where a provider fails to start; here that is an error. Where the CPU
    provider is not among ``providers``, no node may fall back to it either.

    Args:
        graph: The .onnx file; its data files lie beside it.
        threads: Threads of the operators; None leaves the choice to ONNX Runtime (one a physical core).
        providers: Execution providers in order of preference, by their ONNX Runtime names.
        profile: Beginning of the name of the file in which ONNX Runtime keeps the time of every node; None for none.

    Returns:
        The session.

    Raises:
        OptionalDependencyError: ONNX Runtime is not installed.
        OptionError: ``threads`` is not positive or no provider is named.
        RuntimeUnavailableError: A provider is not in this build or did not start, or the graph needs the native library
            and that is not there.
        BundleError: ONNX Runtime refuses the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise OptionalDependencyError("onnxruntime", "cpu", "The onnxruntime runtime") from error
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    if threads is not None and threads < 1:
        raise OptionError("The number of threads is out of range.", found=threads, expected="1 or more")
    _check_available(onnxruntime.get_available_providers(), providers)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; whatever is a warning to us is checked below
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if CPU_PROVIDER not in providers:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if graph.name.endswith(layout.NATIVE_SUFFIX):
        native.library()  # which says why it cannot be used
        options.register_custom_ops_library(str(native.LIBRARY))
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=list(providers))
    except (failures.NoSuchFile, failures.InvalidArgument, failures.InvalidProtobuf, failures.InvalidGraph) as error:
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot read {graph.name}.",
            found=_first_line(error),
            hint="the file is missing, damaged, or newer than this ONNX Runtime: copy or export the bundle again",
        ) from error
    except (failures.Fail, failures.RuntimeException, failures.NotImplemented) as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {graph.name} on {', '.join(providers)}.",
            found=_first_line(error),
            hint="choose other providers, or install another version of ONNX Runtime",
        ) from error
    missing = [name for name in providers if name not in session.get_providers()]
    if missing:
        raise RuntimeUnavailableError(
            f"ONNX Runtime did not start {', '.join(missing)}.",
            found=f"a session on {', '.join(session.get_providers())}",
            expected=", ".join(providers),
            hint="see that the provider's driver and libraries are installed and of the versions it needs",
        )
    return session


def can_be_greedy(session: onnxruntime.InferenceSession) -> bool:
    """Whether a head does less where only the token is wanted (:data:`~flashhead_edge.layout.GREEDY_INPUT`)."""
    return any(tensor.name == layout.GREEDY_INPUT for tensor in session.get_overridable_initializers())


def bind_greedy(binding: onnxruntime.IOBinding, greedy: bool) -> None:
    """Say whether only the token is wanted, to a session that :func:`can_be_greedy`."""
    import numpy as np
    from onnxruntime import OrtValue

    # As a value: by array only inputs without a default can be bound.
    binding.bind_ortvalue_input(layout.GREEDY_INPUT, OrtValue.ortvalue_from_numpy(np.array([greedy])))


def _check_available(available: Sequence[str], providers: Sequence[str]) -> None:
    """Refuse providers that this build of ONNX Runtime does not have."""
    if not providers:
        raise OptionError("No execution provider is named.", expected=f"one or more of {', '.join(available)}")
    missing = [name for name in providers if name not in available]
    if missing:
        raise RuntimeUnavailableError(
            f"This ONNX Runtime has no {', '.join(missing)}.",
            found=", ".join(available),
            expected=", ".join(providers),
            hint="choose one that it has, or install its package (pip install 'flashhead-edge[gpu]' for CUDA)",
        )


def _first_line(error: Exception) -> str:
    """Return the first line of a message, without ONNX Runtime's stack."""
    return next(iter(str(error).splitlines()), type(error).__name__)
