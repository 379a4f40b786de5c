"""The catalogue of platforms: what each kind of device has, and where that is written.

The facts are TOML files, one a family, in ``data/`` and in files of the user's; :mod:`platform_file` reads them. A fact
that nobody could point at a document for is not in them, and is None here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from flashhead_edge.errors import OptionError, PlatformError, did_you_mean


@dataclass(frozen=True)
class JetPack:
    """A release of JetPack, NVIDIA's software for Jetson boards.

    Attributes:
        version: Such as "6.2".
        cuda: Version of the CUDA toolkit in it.
        tensorrt: Version of TensorRT in it; None where unknown.
        sources: Where that is written, for each of the other two.
    """

    version: str
    cuda: str | None = None
    tensorrt: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Platform:
    """A kind of device. What is not known is None, or empty.

    Peaks are what the vendor states; "sparse" ones hold for weights with two zeros in every four, which ours have not.

    Attributes:
        name: Such as "jetson-orin-nano-8gb".
        title: What people call it.
        family: "jetson", "geforce", "datacenter", "cpu" or "accelerator", or one of the user's.
        compute_capability: Of an NVIDIA GPU, such as "8.7".
        isa_features: Of a CPU, named as in /proc/cpuinfo.
        memory_bytes: Memory that a model can use, shared with the system on boards and CPUs.
        memory_bandwidth_gb_s: Peak, in 10^9 bytes a second.
        peak_int8_dense_tops: Peak of int8 products and sums, in 10^12 a second.
        peak_int8_sparse_tops: The same with sparse weights.
        peak_fp16_dense_tflops: Peak of fp16 products and sums, in 10^12 a second.
        peak_fp16_sparse_tflops: The same with sparse weights.
        peak_fp4_sparse_tflops: The same in fp4.
        max_power_watts: Of the module or card.
        power_modes: Names of the modes that ``nvpmodel`` offers.
        precisions: What the device computes in or reads weights in: "fp16", "int8", "int4", ...
        jetpacks: JetPack releases that run on it.
        runtimes: Our runtimes for it, most preferred first.
        providers: Execution providers of ONNX Runtime for it, most preferred first.
        export: Settings for ``flashhead-edge export``, by the names of ``ExportOptions``.
        build: Settings for building TensorRT engines.
        notes: What the figures do not say.
        sources: Where each figure is written, by its field.
    """

    name: str
    title: str
    family: str
    compute_capability: str | None = None
    isa_features: tuple[str, ...] = ()
    memory_bytes: int | None = None
    memory_bandwidth_gb_s: float | None = None
    peak_int8_dense_tops: float | None = None
    peak_int8_sparse_tops: float | None = None
    peak_fp16_dense_tflops: float | None = None
    peak_fp16_sparse_tflops: float | None = None
    peak_fp4_sparse_tflops: float | None = None
    max_power_watts: float | None = None
    power_modes: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    jetpacks: tuple[JetPack, ...] = ()
    runtimes: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    export: Mapping[str, Any] = field(default_factory=dict)
    build: Mapping[str, Any] = field(default_factory=dict)
    notes: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The platform as JSON takes it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Catalog:
    """Platforms by name, in the order of their files.

    Attributes:
        platforms: The platforms.
        jetpacks: JetPack releases by version, for the files that are read next.
    """

    platforms: Mapping[str, Platform]
    jetpacks: Mapping[str, JetPack]

    def find(self, name: str) -> Platform:
        """The platform of a name.

        Args:
            name: As in the catalogue; case does not matter.

        Returns:
            The platform.

        Raises:
            OptionError: There is none; says which names are close.
        """
        platform = self.platforms.get(name.strip().lower())
        if platform is None:
            raise OptionError(
                f"There is no platform {name!r}.",
                found=name,
                expected="a name of `flashhead-edge platforms`",
                hint=did_you_mean(name.strip().lower(), self.platforms),
            )
        return platform

    def with_file(self, text: str, origin: str) -> Catalog:
        """This catalogue and the platforms of one more file.

        Args:
            text: The TOML text.
            origin: What errors call the file.

        Returns:
            The larger catalogue.

        Raises:
            PlatformError: The file is damaged or incomplete, or a name in it is taken.
        """
        from flashhead_edge.platforms.platform_file import parse_platforms

        platforms, jetpacks = parse_platforms(text, origin, self.jetpacks)
        for name in platforms:
            if name in self.platforms:
                raise PlatformError(
                    f"{origin} describes the platform {name!r} a second time.",
                    found=name,
                    expected="a name that is not in the catalogue yet",
                    hint="give your platform another name; a described platform is not changed from outside",
                )
        return Catalog({**self.platforms, **platforms}, jetpacks)


def load_catalog(files: Iterable[Path] = ()) -> Catalog:
    """Read the catalogue.

    Args:
        files: TOML files of the user's, read after those of the package.

    Returns:
        All platforms.

    Raises:
        PlatformError: A file is missing, damaged or incomplete, or describes a known platform.
    """
    catalog = _built_in()
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlatformError(
                f"The platform file {path} cannot be read.",
                found=error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8",
                expected="a TOML file in UTF-8",
                hint="check the path; docs/platforms.md shows a file",
            ) from error
        catalog = catalog.with_file(text, str(path))
    return catalog


def find_platform(name: str, files: Iterable[Path] = ()) -> Platform:
    """The platform of a name.

    Args:
        name: As in the catalogue.
        files: TOML files of the user's.

    Returns:
        The platform.

    Raises:
        OptionError: There is none of that name.
        PlatformError: A file is missing, damaged or incomplete.
    """
    return load_catalog(files).find(name)


@cache
def _built_in() -> Catalog:
    """The package's own files."""
    catalog = Catalog({}, {})
    folder = resources.files("flashhead_edge.platforms") / "data"
    for family in ("jetson", "geforce", "datacenter", "cpu", "accelerators"):
        text = (folder / f"{family}.toml").read_text(encoding="utf-8")
        catalog = catalog.with_file(text, f"the package's {family}.toml")
    return catalog
