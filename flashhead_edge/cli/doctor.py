"""``flashhead-edge doctor``: the device, what does not fit on it, and what to install."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flashhead_edge.platforms.detection import DeviceFacts
    from flashhead_edge.platforms.problems import Problem
    from flashhead_edge.platforms.recommendation import Recommendation

_NAME_WIDTH = 20


@click.command("doctor", short_help="Look at this device and say what to install on it.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
@click.option("--no-providers", is_flag=True, help="Do not try ONNX Runtime's execution providers.")
def doctor_command(as_json: bool, no_providers: bool) -> None:
    """Look at this device and say what to install on it.

    Every fact can be given by an environment variable, for containers: see docs/doctor.md. Problems do not change the
    exit code; scripts read "ok" from --json.
    """
    from flashhead_edge.platforms.detection import detect
    from flashhead_edge.platforms.problems import find_problems
    from flashhead_edge.platforms.recommendation import recommend

    facts = detect(try_providers=not no_providers)
    problems, recommendation = find_problems(facts), recommend(facts)
    if as_json:
        click.echo(json.dumps(doctor_report(facts, problems, recommendation), indent=2, ensure_ascii=False))
    else:
        click.echo(_text(facts, problems, recommendation))


def doctor_report(facts: DeviceFacts, problems: list[Problem], recommendation: Recommendation) -> dict[str, Any]:
    """Gather what ``--json`` prints.

    Args:
        facts: The device.
        problems: What does not fit on it.
        recommendation: What to install.
    """
    import dataclasses

    from flashhead_edge import native
    from flashhead_edge.platforms.matching import match_platform

    return {
        "ok": not any(problem.severity == "error" for problem in problems),
        **facts.as_dict(),
        "platform": dataclasses.asdict(match_platform(facts)),
        "native": {"kernels": _native_kernels(), "unavailable_because": native.unavailable_because()},
        "problems": [dataclasses.asdict(problem) for problem in problems],
        "recommendation": {**dataclasses.asdict(recommendation), "install": list(recommendation.install)},
    }


def _text(facts: DeviceFacts, problems: list[Problem], recommendation: Recommendation) -> str:
    """The report for people."""
    from flashhead_edge.platforms.matching import match_platform

    match = match_platform(facts)
    platform = _line(facts, "platform", f"{match.name or 'unknown'}: {match.reason}", "")
    lines = [platform, *_host_lines(facts), *_jetson_lines(facts), *_nvidia_lines(facts), *_software_lines(facts), ""]
    if not problems:
        lines.append("No problems found.")
    for problem in problems:
        lines += [
            f"{problem.severity.capitalize()}: {problem.message}",
            f"  found: {problem.found}",
            f"  expected: {problem.expected}",
            f"  what to do: {problem.hint}",
        ]
    way = f" on {recommendation.provider}" if recommendation.provider else ""
    lines += ["", f"Best here: {recommendation.runtime}{way}: {recommendation.reason}."]
    if recommendation.install:
        lines += ["To install it:", *(f"  {command}" for command in recommendation.install)]
    else:
        lines.append("It is installed." if facts.providers is None else "It is installed and works.")
    return "\n".join(lines)


def _host_lines(facts: DeviceFacts) -> list[str]:
    from flashhead_edge.cli.inspect import human_bytes

    host = facts.host
    memory = "unknown" if host.memory_bytes is None else human_bytes(host.memory_bytes)
    return [
        _line(facts, "processor", host.cpu_model, "host.cpu_model"),
        _line(facts, "architecture", host.architecture, "host.architecture"),
        _line(facts, "cores", str(host.logical_cores), "host.logical_cores"),
        _line(facts, "instructions", ", ".join(host.isa_features) or "none that we know", "host.isa_features"),
        _line(facts, "memory", memory, "host.memory_bytes"),
        _line(facts, "system", host.os, "host.os"),
        _line(facts, "python", host.python, "host.python"),
    ]


def _jetson_lines(facts: DeviceFacts) -> list[str]:
    jetson = facts.jetson
    if jetson is None:
        return [_line(facts, "jetson", "none", "jetson.model")]
    mode = jetson.power_mode
    mode_name = "unknown" if mode is None else f"{mode.name or mode.id}{' (default)' if mode.is_default else ''}"
    sources = {"dpkg": " (package nvidia-jetpack)", "l4t": " (by its L4T release)"}
    jetpack = f"{jetson.jetpack}{sources.get(jetson.jetpack_source or '', '')}" if jetson.jetpack else "unknown"
    return [
        _line(facts, "jetson", jetson.model or "unknown model", "jetson.model"),
        _line(facts, "system on a chip", _chip(jetson.soc, jetson.compute_capability), "jetson.compatible"),
        _line(facts, "L4T", jetson.l4t or "unknown", "jetson.l4t"),
        _line(facts, "JetPack", jetpack, "jetson.jetpack"),
        _line(facts, "its TensorRT", jetson.tensorrt or "not installed", "jetson.tensorrt"),
        _line(facts, "power mode", mode_name, "jetson.power_mode"),
    ]


def _chip(soc: str | None, compute_capability: str | None) -> str:
    return f"{soc}, compute capability {compute_capability}" if soc and compute_capability else soc or "unknown"


def _nvidia_lines(facts: DeviceFacts) -> list[str]:
    from flashhead_edge.cli.inspect import human_bytes

    nvidia = facts.nvidia
    missing = f"not found ({nvidia.unknown_because})" if nvidia.unknown_because else "not found"
    lines = [_line(facts, "NVIDIA driver", nvidia.driver_version or missing, "nvidia.driver_version")]
    if nvidia.cuda_version:
        lines.append(_line(facts, "its CUDA", nvidia.cuda_version, "nvidia.cuda_version"))
    for gpu in nvidia.gpus:
        parts = [gpu.name or "unnamed"]
        parts += [human_bytes(gpu.memory_bytes)] if gpu.memory_bytes else []
        parts += [f"compute capability {gpu.compute_capability}"] if gpu.compute_capability else []
        lines.append(_line(facts, "GPU", ", ".join(parts), "nvidia.gpus.0" if gpu is nvidia.gpus[0] else ""))
    return lines


def _native_kernels() -> str | None:
    from flashhead_edge import native

    return native.kernels() if native.is_available() else None


def _software_lines(facts: DeviceFacts) -> list[str]:
    packages = ", ".join(f"{name} {version}" for name, version in facts.packages.items()) or "none"
    from flashhead_edge import native

    lines = [_line(facts, "packages", packages, "packages")]
    lines.append(_line(facts, "native library", _native_kernels() or f"no: {native.unavailable_because()}", ""))
    if facts.onnxruntime_cuda:
        lines.append(_line(facts, "built for CUDA", f"{facts.onnxruntime_cuda} (onnxruntime-gpu)", "onnxruntime_cuda"))
    if facts.providers is None:
        return [*lines, _line(facts, "providers", "not tried", "providers")]
    if not facts.providers:
        lines.append(_line(facts, "providers", "none", "providers"))
    for provider in facts.providers:
        state = {True: "loads", False: "does not load", None: "not tried"}[provider.loads]
        reason = f": {provider.reason}" if provider.reason else ""
        lines.append(_line(facts, "provider", f"{provider.name} {state}{reason}", "providers"))
    return lines


def _line(facts: DeviceFacts, name: str, value: str, path: str) -> str:
    """A fact; one that an environment variable gave is marked."""
    variables = [variable for key, variable in facts.overridden.items() if path and key.startswith(path)]
    mark = f" [overridden by {', '.join(variables)}]" if variables else ""
    return f"{name:<{_NAME_WIDTH}}{value}{mark}"
