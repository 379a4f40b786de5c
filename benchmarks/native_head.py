"""How long the head of a bundle takes: the native library against standard operators and dense heads, by batch.

All heads run on the same states in turn, in short bursts, so that what else the machine does meets them alike. With a
bundle that has a body, whole decoding steps follow: the body alone, and with each form of the two-stage head. Writes
``results/native-head.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from benchmarks.models import RESULTS
from flashhead_edge import layout, native
from flashhead_edge.bench.heads import BODY_ALONE, without_head
from flashhead_edge.bundle import Bundle
from flashhead_edge.export.dense_head import write_dense_head
from flashhead_edge.export.graph_files import load_graph, save_graph
from flashhead_edge.export.head_graph import HEAD_OUTPUTS, HeadTables
from flashhead_edge.export.native_graph import native_head_graph
from flashhead_edge.export.stored_centroids import StoredCentroids
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensor_ref import DataFile, TensorRef
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.runtimes.session import can_be_greedy, open_session
from flashhead_edge.tokenizer import Tokenizer

TEXTS = Path(__file__).resolve().parent / "texts"
BATCHES = (1, 2, 4, 8, 16, 32)
#: Calls of a burst; the first ones wake the threads and are not counted.
_BURST, _UNCOUNTED = 12, 3


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--hidden", type=Path, help=".npz or .npy of states, for a bundle without a body")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS / "native-head.json")
    arguments = parser.parse_args()
    load = os.getloadavg()
    bundle = Bundle.open(arguments.bundle, verify=False)
    states = held_out_states(bundle) if arguments.hidden is None else read_states(arguments.hidden)
    with tempfile.TemporaryDirectory(prefix="native-head-", dir=arguments.bundle.resolve().parent) as scratch:
        heads = write_heads(bundle, Path(scratch))
        slots = read_tables(bundle).token_order.read(bundle.path).ravel()
        rows = measure_heads(heads, states, slots, arguments.batches, arguments.threads, arguments.rounds)
        steps = measure_steps(bundle, Path(scratch), arguments.threads, arguments.rounds)
    facts = bundle.manifest.index
    report = {
        "machine": host_facts().as_dict(),
        "load_average_before": load,
        "threads": arguments.threads,
        "kernels": native.kernels(),
        "model": bundle.manifest.source.name,
        "vocab_size": bundle.manifest.vocab_size,
        "hidden_size": bundle.manifest.hidden_size,
        "num_clusters": facts.num_clusters,
        "cluster_size": facts.cluster_size,
        "num_probes": facts.num_probes,
        "centroid_precision": facts.centroid_precision,
        "heads": rows,
        "steps": steps,
    }
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['batch']:>3}  {row['head']:<44} {row['ms_p50']:8.3f} ms  agrees {row['agreement']:.4f}")
    for step in steps:
        print(f"     {step['graph']:<44} {step['ms_p50']:8.3f} ms  head {step['head_share']:.1%} of the step")


def held_out_states(bundle: Bundle) -> np.ndarray:
    """Final hidden states of the texts, teacher-forced through the bundle's own body, [N, H] float32."""
    body = bundle.manifest.body
    if body is None:
        raise SystemExit("a bundle without a body: give states with --hidden")
    decoder = Decoder(bundle.file(bundle.graph("decode").file), body, outputs=("hidden_states",))
    tokenizer = Tokenizer(bundle.path)
    states = []
    for text in sorted(TEXTS.glob("*.txt")):
        ids = tokenizer.encode(text.read_text(encoding="utf-8"))[:256]
        decoder.reset()
        states.append(decoder.run(np.array([ids]), scored=len(ids))[0][4:])
    return np.concatenate(states)


def read_states(path: Path) -> np.ndarray:
    """The first array of a numpy file, [N, H] float32."""
    loaded = np.load(path)
    return np.asarray(loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]], np.float32)


def write_heads(bundle: Bundle, scratch: Path) -> dict[str, Path]:
    """Every form of the head, over the bundle's own table where it reads one."""
    for name in (layout.HEAD_GRAPH, layout.HEAD_DATA):
        shutil.copyfile(bundle.file(name), scratch / name)  # a copy, for onnx refuses links
    tables = read_tables(bundle)
    rows = bundle.rows().slots(slice(None))
    with DataFile(scratch / "variants.data") as data:
        low = {bits: append_low_bit_rows(data, tables, rows, bits) for bits in (8, 4)}
        int4_centroids = {"centroids": StoredCentroids.write(data, bundle.index().narrow_centroids, 4)}
    variants = {
        "native": tables,
        "native, exact": tables,
        "native, int8 rows first": replace(tables, **low[8]),
        "native, int4 rows first": replace(tables, **low[4]),
        "native, int4 centroids": replace(tables, **int4_centroids),
        "native, int4 centroids, int8 rows first": replace(tables, **int4_centroids, **low[8]),
        "native, int4 centroids, int4 rows first": replace(tables, **int4_centroids, **low[4]),
    }
    heads = {"standard operators": scratch / layout.HEAD_GRAPH}
    for number, (name, variant) in enumerate(variants.items()):
        heads[name] = scratch / f"{number}{layout.NATIVE_SUFFIX}"
        save_graph(native_head_graph(variant), heads[name])
    for bits in (8, 4):
        heads[f"dense int{bits}"] = write_dense_head(rows, f"int{bits}", scratch, f"dense{bits}.onnx")  # type: ignore[arg-type]
    return heads


def read_tables(bundle: Bundle) -> HeadTables:
    """Where the tensors of ``head.onnx`` lie."""
    graph = load_graph(bundle.file(layout.HEAD_GRAPH)).graph
    refs: dict[str, TensorRef] = {}
    for tensor in graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
            where = (place["location"], int(place["offset"]), int(place["length"]))
            refs[tensor.name] = TensorRef(tensor.name, dtype, tuple(tensor.dims), *where)
    manifest = bundle.manifest
    return HeadTables(
        rows=StoredRows.among(refs),
        token_order=refs[layout.TOKEN_ORDER],
        row_bias=refs.get(layout.ROW_BIAS),
        centroids=StoredCentroids.among(refs),
        centroid_bias=refs["head.centroid_bias"],
        selection_offset=refs["head.selection_offset"],
        num_probes=manifest.index.num_probes,
        num_clusters=manifest.index.num_clusters,
        logit_scale=manifest.logit_scale,
        logit_softcap=manifest.logit_softcap,
        projection=refs.get("head.projection"),
    )


def append_low_bit_rows(data: DataFile, tables: HeadTables, rows: np.ndarray, bits: int) -> dict[str, TensorRef]:
    """Codes and scales of the table's rows; both precisions go into one file, so names carry the bits there."""
    quantized = quantize_rows(rows, bits)
    shape = (*tables.rows.shape[:2], *quantized.codes.shape[1:])
    codes = data.append(f"{layout.LOW_BIT_CODES}.{bits}", quantized.codes, shape=shape)
    scales = data.append(f"{layout.LOW_BIT_SCALES}.{bits}", quantized.scales, shape=shape[:3])
    return {"low_bit_codes": codes, "low_bit_scales": scales}


def measure_heads(
    heads: dict[str, Path], states: np.ndarray, slots: np.ndarray, batches: list[int], threads: int, rounds: int
) -> list[dict[str, object]]:
    """Milliseconds of every head at every batch, and how often it takes the token of the standard operators."""
    sessions = {name: open_session(path, threads=threads) for name, path in heads.items()}
    random = np.random.default_rng(0)
    order = random.permutation(len(states))
    rows = []
    greedy = {
        name: {layout.GREEDY_INPUT: np.array([True])} if can_be_greedy(session) and not name.endswith("exact") else {}
        for name, session in sessions.items()
    }
    for batch in batches:
        times: dict[str, list[float]] = {name: [] for name in sessions}
        tokens: dict[str, list[np.ndarray]] = {name: [] for name in sessions}
        for turn in range(rounds):
            for name, session in sessions.items():
                time.sleep(0.02)  # another session's threads still spin
                for call in range(_BURST):
                    picked = np.take(order, np.arange(batch) + (turn * _BURST + call) * batch, mode="wrap")
                    feed = {"hidden_states": states[picked]} | greedy[name]
                    wanted = list(HEAD_OUTPUTS) if not name.startswith("dense") else ["token_ids", "candidate_logits"]
                    start = time.perf_counter()
                    output = session.run(wanted, feed)
                    seconds = time.perf_counter() - start
                    tokens[name].append(slots[output[0]] if name.startswith("dense") else output[0])
                    if call >= _UNCOUNTED:
                        times[name].append(seconds * 1e3)
        baseline = np.concatenate(tokens["standard operators"])
        for name in sessions:
            agreement = float((np.concatenate(tokens[name]) == baseline).mean())
            rows.append({"batch": batch, "head": name, **spread(times[name]), "agreement": agreement})
    return rows


def measure_steps(bundle: Bundle, scratch: Path, threads: int, rounds: int) -> list[dict[str, object]]:
    """Milliseconds of whole greedy decoding steps after a short prompt, batch 1; empty without native graphs."""
    body = bundle.manifest.body
    if body is None or "decode_native" not in bundle.manifest.graphs:
        return []
    for name in bundle.manifest.files:
        if name.endswith(".data") and not (scratch / name).exists():
            shutil.copyfile(bundle.file(name), scratch / name)
    graphs = {name: bundle.file(bundle.graph(name).file) for name in ("decode", "decode_native")}
    for name, path in list(graphs.items()):
        suffix = "".join(path.suffixes)
        graphs[f"{name}, {BODY_ALONE}"] = without_head(path, scratch / f"body-alone{suffix}")
    decoders = {
        name: Decoder(
            path, body, threads=threads, outputs=("hidden_states",) if name.endswith(BODY_ALONE) else ("token_ids",)
        )
        for name, path in graphs.items()
    }
    prompt = np.array([Tokenizer(bundle.path).encode((TEXTS / "de.txt").read_text(encoding="utf-8"))[:32]])
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds):
        for name, decoder in decoders.items():
            time.sleep(0.02)
            decoder.reset(positions=64)
            output = decoder.run(prompt, greedy=True)
            for call in range(24):
                token = prompt[:, call : call + 1] if name.endswith(BODY_ALONE) else output[0][:, None]
                start = time.perf_counter()
                output = decoder.run(token, greedy=True)
                if call >= _UNCOUNTED:
                    times[name].append((time.perf_counter() - start) * 1e3)
    medians = {name: float(np.median(found)) for name, found in times.items()}
    return [
        {"graph": name, **spread(found), "head_share": max(0.0, 1 - medians[own] / medians[name])}
        for name, found in times.items()
        for own in (name if name.endswith(BODY_ALONE) else f"{name}, {BODY_ALONE}",)
    ]


def spread(times: list[float]) -> dict[str, float]:
    """Median and the middle 80 %."""
    return {f"ms_p{percent}": round(float(np.percentile(times, percent)), 4) for percent in (50, 10, 90)}


if __name__ == "__main__":
    onnxruntime.set_default_logger_severity(3)
    main()
