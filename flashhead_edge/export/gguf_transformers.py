"""Faster and quieter reading of GGUF files by transformers, and what some of its versions leave out."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flashhead_edge.export.gguf_files import GgufFile, import_gguf


@contextmanager
def shared_gguf_reader(path: Path) -> Iterator[None]:
    """Let everyone in this block who opens ``path`` with ``gguf.GGUFReader`` get the same reader.

    transformers opens a GGUF file once for the config, once for the tokenizer and twice for the model, and every
    time the reader walks the whole vocabulary: more than a minute for Gemma 3, a quarter of that in this block.
    Its progress bar, which no setting turns off, stays away too. Not for use by several threads.
    """
    from transformers import modeling_gguf_pytorch_utils as loading

    gguf = import_gguf()
    original = gguf.GGUFReader
    readers: list[Any] = []

    class PlainArrayReader(original):  # type: ignore[misc, valid-type]
        """Works on a plain array: every slice of a ``numpy.memmap`` costs several times that of an array."""

        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, value: Any) -> None:
            self._plain = value.view(np.ndarray)

    def open_shared(file: Any, *arguments: Any, **options: Any) -> Any:
        if Path(file) != path or arguments or options:
            return original(file, *arguments, **options)
        if not readers:
            readers.append(PlainArrayReader(file))
        return readers[0]

    silent = functools.partial(loading.tqdm, disable=True)
    with _replaced(gguf, "GGUFReader", open_shared), _replaced(loading, "tqdm", silent):
        yield


def begin_as_the_file_says(tokenizer: Any, path: Path) -> None:
    """Have a tokenizer put the beginning-of-text token where the file says so, or leave it out.

    Some versions of transformers (5.19) make tokenizers of GGUF files that leave it out whatever the file says, and
    many models write nonsense without it.

    Args:
        tokenizer: transformers' tokenizer of the file; changed in place.
        path: The file. Where it says nothing, nothing is changed.
    """
    says = GgufFile(path).header.metadata.get("tokenizer.ggml.add_bos_token")
    backend, bos = getattr(tokenizer, "backend_tokenizer", None), tokenizer.bos_token
    if says is None or backend is None or bos is None:
        return
    begins = backend.encode("a").ids[:1] == [tokenizer.bos_token_id]
    if begins != bool(says):
        from tokenizers.processors import TemplateProcessing

        start = f"{bos} " if says else ""
        backend.post_processor = TemplateProcessing(
            single=f"{start}$A", pair=f"{start}$A {start}$B:1", special_tokens=[(bos, tokenizer.bos_token_id)]
        )


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
