"""Small random heads, and bundles that hold nothing else: the real graphs over real data files, without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle, hash_file
from flashhead_edge.export.head_graph import HeadTables, dense_graph, two_stage_graph
from flashhead_edge.export.stored_centroids import StoredCentroids
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensor_ref import DataFile, TensorRef
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.index.storage import save_index
from flashhead_edge.lm_head import LmHead
from flashhead_edge.manifest import (
    CalibrationRecord,
    GraphRecord,
    IndexRecord,
    Manifest,
    QualityRecord,
    SourceRecord,
    TensorRecord,
)
from flashhead_edge.quantize import split_nibbles, stored_int8

BITS = {"int4": 4, "int8": 8}


def random_head(vocab: int, width: int, *, seed: int = 0, bias: bool = False, **options: Any) -> LmHead:
    """Rows of about unit length; ``options`` are those of ``LmHead``."""
    random = np.random.default_rng(seed)
    rows = (random.normal(size=(vocab, width)) * width**-0.5).astype(np.float32)
    return LmHead(rows, random.normal(size=vocab).astype(np.float32) if bias else None, **options)


def int8_head(vocab: int, width: int, *, seed: int = 0, **options: Any) -> LmHead:
    """The same with rows that int8 codes and half-precision scales of blocks of 32 hold exactly; some blocks are 0."""
    head = random_head(vocab, width, seed=seed, **options)
    blocks = head.rows.reshape(vocab, -1, 32)
    scales = (np.abs(blocks).max(axis=2, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    codes = np.rint(blocks / scales).clip(-127, 127)
    np.put_along_axis(codes, np.abs(codes).argmax(axis=2)[..., None], 127, axis=2)
    codes[::7, 0] = 0
    return replace(head, rows=(codes * scales).reshape(vocab, width))


def random_states(count: int, width: int, *, seed: int = 1) -> np.ndarray:
    """[N, H] float32, long enough for logits of a few units."""
    return (np.random.default_rng(seed).normal(size=(count, width)) * 3).astype(np.float32)


def random_index(
    head: LmHead, cluster_size: int, *, always: tuple[int, ...] = (), seed: int = 0, rank: int | None = None
) -> HeadIndex:
    """An index with tokens, and holes, anywhere: runtimes must not count on what clustering happens to give."""
    random = np.random.default_rng(seed)
    vocab = head.vocab_size
    clusters = -(-vocab // cluster_size)
    order = np.full(clusters * cluster_size, -1, np.int32)
    order[random.permutation(len(order))[:vocab]] = random.permutation(vocab)
    order[np.isin(order, always)] = -1
    extra = np.full(-(-len(always) // cluster_size) * cluster_size, -1, np.int32)
    extra[: len(always)] = always
    own = order.reshape(clusters, cluster_size)
    counts = (own >= 0).sum(axis=1).clip(min=1)

    def means(values: np.ndarray) -> np.ndarray:
        filled = (own >= 0).reshape(*own.shape, *[1] * (values.ndim - 1))
        total = np.where(filled, values[own.clip(min=0)], 0).sum(axis=1)
        return (total / counts.reshape(-1, *[1] * (values.ndim - 1))).astype(np.float32)

    centroids, projection = means(head.rows), None
    if rank is not None:
        projection = np.linalg.qr(random.normal(size=(head.hidden_size, rank)))[0].astype(np.float32)
        centroids = centroids @ projection @ projection.T
    return HeadIndex(
        token_order=np.concatenate([own, extra.reshape(-1, cluster_size)]),
        centroids=centroids,
        centroid_bias=np.zeros(clusters, np.float32) if head.bias is None else means(head.bias),
        selection_offset=random.uniform(0, 0.5, size=clusters).astype(np.float32),
        cluster_variance=random.uniform(0, 1, size=clusters).astype(np.float32),
        vocab_size=vocab,
        projection=projection,
    )


def table_rows(head: LmHead, index: HeadIndex, dtype: str = "float32") -> np.ndarray:
    """The head's rows in the order of the table, [T, C, H]; padding is noise, which no runtime may look at."""
    rows = head.rows[index.token_order.clip(min=0)] * 50
    filled = index.token_order >= 0
    rows[filled] = head.rows[index.token_order[filled]]
    return rows.astype(dtype)


def table_bias(head: LmHead, index: HeadIndex) -> np.ndarray | None:
    """The head's bias in the order of the table, [T, C]; great where there is no token."""
    if head.bias is None:
        return None
    return np.where(index.token_order < 0, np.float32(1e4), head.bias[index.token_order])


def write_tables(
    folder: Path, head: LmHead, index: HeadIndex, num_probes: int, *, centroids: str = "fp32", rows: str = "float32"
) -> HeadTables:
    """Write ``head.onnx.data`` and say where everything lies in it."""
    with DataFile(folder / layout.HEAD_DATA) as data:

        def optional(name: str, array: np.ndarray | None) -> TensorRef | None:
            return None if array is None else data.append(name, array)

        if rows == "int8":
            stored = stored_int8(head.rows)
            assert stored is not None
            codes, of_blocks = (part[index.token_order.clip(min=0)] for part in stored)
            high, low = split_nibbles(codes)
            table = StoredRows(
                data.append(layout.HIGH_NIBBLES, high),
                data.append(layout.LOW_NIBBLES, low),
                data.append(layout.ROW_SCALES, of_blocks),
            )
        else:
            table = StoredRows(data.append(layout.ROWS, table_rows(head, index, rows)))
        return HeadTables(
            rows=table,
            token_order=data.append(layout.TOKEN_ORDER, index.token_order),
            row_bias=optional(layout.ROW_BIAS, table_bias(head, index)),
            centroids=StoredCentroids.write(data, index.narrow_centroids, BITS.get(centroids, 32)),
            centroid_bias=data.append("head.centroid_bias", index.centroid_bias),
            selection_offset=data.append("head.selection_offset", index.selection_offset),
            num_probes=num_probes,
            num_clusters=index.num_clusters,
            logit_scale=head.logit_scale,
            logit_softcap=head.logit_softcap,
            projection=optional("head.projection", index.projection),
        )


def head_bundle(
    folder: Path, head: LmHead, index: HeadIndex, num_probes: int, *, centroids: str = "fp32", rows: str = "float32"
) -> Bundle:
    """A bundle with ``head.onnx``, ``dense.onnx`` over the same data, and the index; opened as a user would."""
    folder.mkdir(parents=True)
    tables = write_tables(folder, head, index, num_probes, centroids=centroids, rows=rows)
    save_index(index, folder / layout.INDEX)
    graphs = {}
    for name, file, model in (
        ("head", layout.HEAD_GRAPH, two_stage_graph(tables)),
        ("dense", layout.DENSE_GRAPH, dense_graph(tables)),
    ):
        onnx.save(model, folder / file)
        names = [[value.name for value in values] for values in (model.graph.input, model.graph.output)]
        graphs[name] = GraphRecord(file, *names)
    records = {
        ref.name: TensorRecord(ref.location, ref.dtype, list(ref.shape), ref.offset, ref.length)
        for ref in (*tables.rows.refs, tables.row_bias)
        if ref is not None
    }
    slots = index.num_always_clusters * index.cluster_size
    facts = IndexRecord(
        num_clusters=index.num_clusters,
        cluster_size=index.cluster_size,
        num_probes=num_probes,
        always_scored=slots,
        rows_scored=index.rows_scored(num_probes),
        reduction=index.reduction(num_probes),
        centroid_precision=centroids,
        cluster_precision={"float32": "fp32", "float16": "fp16", "int8": "int8"}[rows],
        clustering_seconds=0.5,
        calibration=CalibrationRecord("builtin", 100, 0),
        quality=QualityRecord(10, 0.99, None),
    )
    manifest = Manifest(
        created_by="tests",
        source=SourceRecord("folder", "tïny", "llama", "0" * 64),
        vocab_size=head.vocab_size,
        hidden_size=head.hidden_size,
        tied=False,
        logit_scale=head.logit_scale,
        logit_softcap=head.logit_softcap,
        has_bias=head.bias is not None,
        embedding_scale=1.0,
        bos_token_ids=[0],
        eos_token_ids=[1],
        always_scored_ids=index.always_scored.tolist(),
        index=facts,
        graphs=graphs,
        tables=records,
        body=None,
        files={file.name: hash_file(file) for file in sorted(folder.iterdir())},
    )
    (folder / layout.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.open(folder)


def rounded(head: LmHead, dtype: str) -> LmHead:
    """The head as a table of that type holds it."""
    return replace(head, rows=head.rows.astype(dtype).astype(np.float32))


def dense_logits(head: LmHead, states: np.ndarray) -> np.ndarray:
    """The definition in double precision, [B, V]."""
    products = states.astype(np.float64) @ head.rows.astype(np.float64).T
    if head.bias is not None:
        products += head.bias
    logits = products * head.logit_scale
    return logits if head.logit_softcap is None else head.logit_softcap * np.tanh(logits / head.logit_softcap)


def by_token(ids: np.ndarray, logits: np.ndarray, vocab: int) -> np.ndarray:
    """Candidates' logits in the order of the vocabulary, NaN where a token is none, [B, V]."""
    result = np.full((len(ids), vocab), np.nan)
    for row, tokens, values in zip(result, ids, logits, strict=True):
        row[tokens[tokens >= 0]] = values[tokens >= 0]
    return result
