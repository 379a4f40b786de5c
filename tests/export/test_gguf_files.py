"""GGUF files against the reader and de-quantization of the ``gguf`` package, and damaged ones."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from tiny_gguf import random_rows, write_gguf

from flashhead_edge.errors import FlashHeadError, SourceError, UnsupportedModelError, WeightError
from flashhead_edge.export.gguf_files import GgufFile
from flashhead_edge.export.heads import embedding_scale, read_embedding, read_head
from flashhead_edge.export.sources import resolve_source
from flashhead_edge.lm_head import LmHead

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
HIDDEN = {"embedding_length": 256}
#: What the package can write...
QUANTIZED = [
    Kind.F16,
    Kind.BF16,
    Kind.Q8_0,
    Kind.Q4_0,
    Kind.Q4_1,
    Kind.Q5_0,
    Kind.Q5_1,
    Kind.TQ1_0,
    Kind.TQ2_0,
]
#: ...and what it can only read: any bytes are valid blocks of these, but for the halves that scale them.
READ_ONLY = [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_NL, Kind.IQ4_XS, Kind.IQ2_XXS, Kind.IQ3_S]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf", {EMBEDDING: random_rows()}, metadata=HIDDEN)


def head_of(path: Path) -> LmHead:
    return read_head(resolve_source(str(path)))


def write_raw(path: Path, kind: Kind, *, rows: int = 40) -> Path:
    """Write an embedding of random blocks whose every half-precision number is small and finite."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(1).integers(0, 256, (rows, 256 // block * size), dtype=np.uint8)
    raw[:, 1::2] &= 0b10111011  # no exponent of all ones, wherever the halves lie
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(256)
    writer.add_token_list([str(token_id) for token_id in range(rows)])
    writer.add_tensor(EMBEDDING, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", [Kind.F32, *QUANTIZED], ids=lambda kind: kind.name)
def test_rows_equal_the_packages_own_dequantization(kind: Kind, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", {EMBEDDING: random_rows()}, kind=kind, metadata=HIDDEN)
    head = head_of(path)
    tensor = gguf.GGUFReader(path).tensors[0]
    np.testing.assert_array_equal(head.rows, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    assert head.tied
    assert head.rows.dtype == np.float32
    assert head.rows.flags.c_contiguous


@pytest.mark.parametrize("kind", READ_ONLY, ids=lambda kind: kind.name)
def test_rows_of_types_that_llama_cpp_writes(kind: Kind, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "model.gguf", kind)
    tensor = gguf.GGUFReader(path).tensors[0]
    np.testing.assert_array_equal(head_of(path).rows, gguf.quants.dequantize(tensor.data, tensor.tensor_type))


def test_every_type_that_the_package_dequantizes_is_read(tmp_path: Path) -> None:
    for kind in gguf.quants._type_traits:
        source = resolve_source(str(write_raw(tmp_path / f"{kind.name}.gguf", kind)))
        assert GgufFile(source.path).read(EMBEDDING).shape == (40, 256), kind


def test_header_equals_the_packages_reader(tmp_path: Path) -> None:
    tensors = {EMBEDDING: random_rows(), "blk.0.attn_norm.weight": np.ones(256, np.float32), HEAD: random_rows(1)}
    path = write_gguf(tmp_path / "model.gguf", tensors, kind=Kind.Q8_0, metadata={**HIDDEN, "rope.freq_base": 1e4})
    ours, theirs = GgufFile(path).header, gguf.GGUFReader(path)
    for tensor in theirs.tensors:
        place = ours.tensors[tensor.name]
        assert place.shape == tuple(reversed(tensor.shape.tolist()))
        assert (place.offset, place.size, place.kind) == (tensor.data_offset, tensor.n_bytes, tensor.tensor_type)
    for key, field in theirs.fields.items():
        if key.startswith("GGUF."):
            continue
        value = ours.array(key) if field.types[0] is gguf.GGUFValueType.ARRAY else ours.metadata[key]
        assert value == field.contents()


def test_untied_head(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {EMBEDDING: random_rows(), HEAD: random_rows(1)}, metadata=HIDDEN)
    head = head_of(path)
    np.testing.assert_array_equal(head.rows, random_rows(1))
    np.testing.assert_array_equal(read_embedding(resolve_source(str(path))), random_rows())
    assert not head.tied


def test_head_that_repeats_the_embedding_is_tied(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {EMBEDDING: random_rows(), HEAD: random_rows()}, metadata=HIDDEN)
    assert head_of(path).tied


def test_bias(tmp_path: Path) -> None:
    bias = np.linspace(-1, 1, 515, dtype=np.float32)
    tensors = {EMBEDDING: random_rows(), HEAD: random_rows(1), "output.bias": bias}
    head = head_of(write_gguf(tmp_path / "m.gguf", tensors, architecture="phi2", kind=Kind.Q8_0, metadata=HIDDEN))
    assert head.bias is not None
    np.testing.assert_array_equal(head.bias, bias)


@pytest.mark.parametrize(
    ("architecture", "metadata", "expected"),
    [
        ("llama", {}, (1.0, None, 1.0)),
        ("llama", {"logit_scale": 5.0, "final_logit_softcapping": 5.0}, (1.0, None, 1.0)),
        ("granite", {"logit_scale": 8.0, "embedding_scale": 12.0}, (1 / 8, None, 12.0)),
        ("granite", {}, (1.0, None, 1.0)),
        ("command-r", {"logit_scale": 0.25}, (0.25, None, 1.0)),
        ("gemma2", {"final_logit_softcapping": 20.0}, (1.0, 20.0, 16.0)),
        ("gemma2", {}, (1.0, 30.0, 16.0)),
        ("gemma3", {}, (1.0, None, 16.0)),
    ],
)
def test_scales(architecture: str, metadata: dict[str, float], expected: tuple[object, ...], tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "m.gguf", {EMBEDDING: random_rows()}, architecture=architecture, metadata={**HIDDEN, **metadata}
    )
    head = head_of(path)
    found = (head.logit_scale, head.logit_softcap, embedding_scale(resolve_source(str(path))))
    assert found == pytest.approx(expected)


def test_source(small: Path) -> None:
    source = resolve_source(str(small))
    assert (source.kind, source.name, source.model_type) == ("gguf", "small.gguf", "llama")
    assert len(source.fingerprint()) == 64


def test_unknown_architecture(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {EMBEDDING: random_rows()}, architecture="gema2")
    with pytest.raises(UnsupportedModelError, match=r"'gema2'(.|\n)*did you mean 'gemma2'(.|\n)*Known: "):
        resolve_source(str(path))


def test_no_tokenizer(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {EMBEDDING: random_rows()}, tokens=False)
    with pytest.raises(SourceError, match="no tokenizer"):
        resolve_source(str(path))


def test_one_part_of_several(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {EMBEDDING: random_rows()}, metadata={"split.count": 3})
    with pytest.raises(SourceError, match=r"split.count 3(.|\n)*llama-gguf-split --merge"):
        resolve_source(str(path))


def test_no_embedding(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"embeddings": random_rows()}, metadata=HIDDEN)
    with pytest.raises(SourceError, match=r"found: embeddings(.|\n)*token_embd.weight"):
        head_of(path)


def test_other_hidden_size(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {EMBEDDING: random_rows()}, metadata={"embedding_length": 128})
    with pytest.raises(WeightError, match=r"\[515, 256\](.|\n)*128"):
        head_of(path)


def test_rows_that_are_not_finite(tmp_path: Path) -> None:
    rows = random_rows()
    rows[[3, 514], 0] = np.nan
    path = write_gguf(tmp_path / "m.gguf", {EMBEDDING: rows}, kind=Kind.F16, metadata=HIDDEN)
    with pytest.raises(WeightError, match="2 of 515 rows: 3, 514"):
        head_of(path)


@pytest.mark.parametrize("kind", [24, 4711], ids=["I8", "unknown"])
def test_type_that_cannot_be_dequantized(kind: int, small: Path, tmp_path: Path) -> None:
    content = bytearray(small.read_bytes())
    at = content.index(EMBEDDING.encode()) + len(EMBEDDING) + 4 + 16
    content[at : at + 4] = struct.pack("<I", kind)
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(WeightError, match=rf"GGML type {kind}(.|\n)*Q4_K"):
        head_of(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"GGUF", "truncated"),
        (b"PK\x03\x04" + bytes(60), "no GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    ],
    ids=["empty", "magic-only", "zip", "version-1", "big-endian"],
)
def test_no_gguf(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        resolve_source(str(path))


def test_truncated_anywhere(small: Path, tmp_path: Path) -> None:
    content = small.read_bytes()
    path = tmp_path / "m.gguf"
    for length in [*range(1, 400, 7), *range(400, len(content), len(content) // 60), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(SourceError, match=r"m.gguf is (truncated or damaged|no GGUF file)"):
            resolve_source(str(path))


def test_garbled_headers_never_escape_our_errors(small: Path, tmp_path: Path) -> None:
    content, generator = small.read_bytes(), np.random.default_rng(0)
    header = GgufFile(small).header.size
    path = tmp_path / "m.gguf"
    for _ in range(300):
        spoiled = np.frombuffer(content, dtype=np.uint8).copy()
        spoiled[generator.integers(4, header, size=3)] = generator.integers(0, 256, size=3)
        path.write_bytes(spoiled.tobytes())
        with contextlib.suppress(FlashHeadError):
            head_of(path)


def test_reading_keeps_no_vocabulary(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("the package's reader was used")

    monkeypatch.setattr(gguf, "GGUFReader", forbidden)
    assert head_of(small).vocab_size == 515


@pytest.fixture
def raises_for(tmp_path: Path) -> Callable[[bytes], str]:
    def message_of(content: bytes) -> str:
        path = tmp_path / "m.gguf"
        path.write_bytes(content)
        with pytest.raises(SourceError) as caught:
            resolve_source(str(path))
        return str(caught.value)

    return message_of


def test_absurd_counts_end_at_once(raises_for: Callable[[bytes], str]) -> None:
    huge = 2**62
    entry = struct.pack("<Q", 1) + b"k" + struct.pack("<I", 9)
    assert "truncated" in raises_for(b"GGUF" + struct.pack("<IQQ", 3, huge, huge))
    for item in (0, 8, 9, 12, 99):
        array = entry + struct.pack("<IQ", item, huge)
        assert "truncated" in raises_for(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array)
