"""Names of the files in a bundle and the version of its schema, shared by writer and readers."""

from __future__ import annotations

from collections.abc import Container

SCHEMA_VERSION = 1

MANIFEST = "flashhead.json"
INDEX = "index.safetensors"
HEAD_GRAPH = "head.onnx"
HEAD_DATA = "head.onnx.data"
BODY_GRAPH = "body.onnx"
BODY_DATA = "body.onnx.data"
DECODE_GRAPH = "decode.onnx"
#: Ends the names of graphs that need the native library.
NATIVE_SUFFIX = ".native.onnx"
NATIVE_HEAD_GRAPH = f"head{NATIVE_SUFFIX}"
NATIVE_DECODE_GRAPH = f"decode{NATIVE_SUFFIX}"
NATIVE_DENSE_GRAPH = f"dense{NATIVE_SUFFIX}"
#: Ends the names of graphs for NVIDIA GPUs.
CUDA_SUFFIX = ".cuda.onnx"
CUDA_DECODE_GRAPH = f"decode{CUDA_SUFFIX}"
CUDA_DENSE_GRAPH = f"dense{CUDA_SUFFIX}"
TENSORRT_HEAD_GRAPH = "head.tensorrt.onnx"
TENSORRT_DENSE_GRAPH = "dense.tensorrt.onnx"
DENSE_GRAPH = "dense.onnx"
EMBEDDING_DATA = "embedding.onnx.data"
TOKENIZER = "tokenizer.json"
#: Tokens and merges of ``tokenizer.json`` as a table, where it can be one.
TOKEN_TABLE = "tokenizer.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
#: Folder for engines that a device builds; the manifest does not list what is in it.
ENGINES = "engines"
#: Folder for profiles; the manifest does not list what is in it.
PROFILES = "profiles"

#: Optional input [1] bool of native graphs, false where nothing is fed: whether only ``token_ids`` is wanted.
#: Candidates that cannot be the token then keep an estimate for a logit, below the token's.
GREEDY_INPUT = "greedy"

#: Name of the initializer with the cluster-ordered vocabulary rows, [T, C, H]; int8 rows lie in two halves instead.
ROWS = "head.rows"
#: Names of the initializers with the nibbles of int8 rows, [T, C, H / 32, 16] uint8 each
#: (:func:`flashhead_edge.quantize.split_nibbles`).
HIGH_NIBBLES = "head.high_nibbles"
LOW_NIBBLES = "head.low_nibbles"
#: Name of the initializer with the scales of int8 rows, [T, C, H / 32] float16.
ROW_SCALES = "head.row_scales"
#: Name of the initializer with the bias of every slot, [T, C] float32, where the head has a bias.
ROW_BIAS = "head.row_bias"
#: Name of the initializer with the token id of every slot, [T, C] int32, -1 for padding.
TOKEN_ORDER = "head.token_order"
#: Name of the initializer with the slot of every token, [V] int32.
SLOT_OF_TOKEN = "head.slot_of_token"
#: Name of the input-embedding table of a model whose head is not tied, [V, H].
EMBEDDING_ROWS = "embedding.rows"
#: Names of the initializers with the low-bit rows in the table's order: codes [T, C, blocks, bytes] uint8, and their
#: scales [T, C, blocks] float16.
LOW_BIT_CODES = "head.low_bit_codes"
LOW_BIT_SCALES = "head.low_bit_scales"


def row_tables(names: Container[str]) -> tuple[str, ...]:
    """Names of the tables that hold the rows, where these are the names of all tables."""
    return (ROWS,) if ROWS in names else (HIGH_NIBBLES, LOW_NIBBLES, ROW_SCALES)
