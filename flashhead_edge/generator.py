"""Text from a bundle: prompt, decode steps, choice of tokens, and when to stop.

>>> bundle = Bundle.open("gemma-3-270m")  # doctest: +SKIP
>>> Generator(bundle).generate("The capital of France is").text  # doctest: +SKIP
' Paris.'
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from flashhead_edge.batch import generate_batch
from flashhead_edge.beam_search import Beam, beam_search
from flashhead_edge.drafts import Drafter, DraftModel, PromptLookup, say_if_unlike
from flashhead_edge.errors import BundleError, OptionError, ProfileError, did_you_mean
from flashhead_edge.exact_head import ExactHead
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.generation import Generation, GenerationOptions
from flashhead_edge.generation_stream import GenerationStream
from flashhead_edge.index.distribution import VocabularyDistribution
from flashhead_edge.metrics import Metrics, Recorder
from flashhead_edge.monitor import MonitorOptions, RecallMonitor
from flashhead_edge.prompts import Prompt, prompt_to_ids
from flashhead_edge.runtimes.decoder import AnyDecoder, Decoder
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.runtimes.selector import device_facts, select
from flashhead_edge.runtimes.session import CPU_PROVIDER
from flashhead_edge.text_writer import TextWriter
from flashhead_edge.token_scores import WholeVocabulary
from flashhead_edge.tokenizer import Tokenizer
from flashhead_edge.tracing import Tracer, span

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flashhead_edge.bundle import Bundle
    from flashhead_edge.generation import GenerationKeywords

_log = logging.getLogger(__name__)

_GRAPH_OF_HEAD = {"two-stage": "decode", "dense": "dense", "exact": "decode"}


class Generator:
    """Generates text with the model of a bundle.

    Args:
        bundle: An opened bundle with a body.
        head: "two-stage"; "dense" for the head that scores the whole vocabulary; or "exact" for the dense head's tokens
            by a scan of low-bit rows, or by one pass over the rows as they are stored.
        runtime: "auto" for the best one here, or a name that ``flashhead-edge runtimes`` lists.
        threads: Threads of the operators; None leaves the choice to the runtime.
        providers: ONNX Runtime's execution providers; one that cannot be used is an error. None leaves the choice to
            the selector.
        draft: A smaller model with the same tokenizer that guesses tokens, for ``num_drafts``; without one, guesses
            come from the text itself.
        monitor: Compare steps with the dense head now and then; None does not.
        tracer: Keeps the times of what is done; None does not.

    Attributes:
        runtime: What executes the model.
        runtime_reason: Why this runtime.
        monitor: The recall monitor of all texts so far, or None.
        exact: The exact head, or None.
        recorder: Counts for :attr:`metrics`.

    Raises:
        OptionError: The head or runtime is unknown, or the draft model has another tokenizer.
        BundleError: The bundle lacks the body, the graph or the tokenizer.
        RuntimeUnavailableError: The runtime or a provider cannot be used here.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        head: str = "two-stage",
        runtime: str = "auto",
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        draft: Generator | None = None,
        monitor: MonitorOptions | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        _check_known("head", head, _GRAPH_OF_HEAD)
        body = bundle.manifest.body
        if body is None:
            raise BundleError(
                "The bundle has no body, and text needs the whole model.",
                found="a bundle with a head alone",
                hint="export the model again without --no-body, or drive the head with your own decoder",
            )
        self.bundle = bundle
        self.head = head
        self.recorder = Recorder(tracer)
        self.runtime, providers, self.runtime_reason = _choose_runtime(bundle, runtime, providers)
        fields = {"runtime": self.runtime, "providers": list(providers), "reason": self.runtime_reason}
        _log.info("runtime chosen", extra={"fields": fields})
        self.tokenizer = Tokenizer(bundle.path)
        self._threads = threads
        self._host_threads = threads or os.cpu_count() or 1
        self._asked_providers = providers
        self.decoder = self._open_decoder(_GRAPH_OF_HEAD[head])
        self._max_positions = body.max_positions
        self._stream: GenerationStream | None = None
        self.monitor = RecallMonitor(monitor) if monitor is not None and head == "two-stage" else None
        self.exact = None
        if head == "exact":
            self.exact = ExactHead.from_bundle(bundle, threads=self._host_threads)
        self._drafts_checked = False
        self._drafter: Drafter = PromptLookup()
        if draft is not None:
            self._drafter = DraftModel(draft, bundle)

    @cached_property
    def vocabulary(self) -> WholeVocabulary | None:
        """What reaches the tokens that are no candidates; None for other heads, which score all."""
        if self.head != "two-stage":
            return None
        manifest = self.bundle.manifest
        rows = ExactRows.from_bundle(self.bundle, threads=self._host_threads)
        distribution = VocabularyDistribution(
            rows.index, logit_scale=manifest.logit_scale, logit_softcap=manifest.logit_softcap
        )
        return WholeVocabulary(rows, distribution)

    @cached_property
    def dense_decoder(self) -> AnyDecoder:
        """The decoder with the dense head, opened when the recall monitor asks for it."""
        return self._open_decoder(_GRAPH_OF_HEAD["dense"])

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers that run the model."""
        return self.decoder.providers

    @property
    def metrics(self) -> Metrics:
        """Counts of all texts so far."""
        recall = self.monitor.recall.as_dict() if self.monitor is not None else None
        return self.recorder.snapshot(head_share=self._head_share, recall=recall)

    @cached_property
    def _head_share(self) -> float | None:
        """The head's share of a step in the newest fitting profile of the bundle, as it was when first asked for."""
        from flashhead_edge.platforms.host import host_facts
        from flashhead_edge.profiling.store import profiles_of

        here = host_facts().cpu_model
        try:
            profiles = profiles_of(self.bundle)
        except ProfileError as error:
            _log.warning("the head's share of a step is not known: %s", error)
            return None
        shares = [
            profile.head_share
            for profile in profiles
            if profile.measured and profile.model.head == self.head and profile.machine.processor == here
        ]
        return shares[-1] if shares else None

    def generate(self, prompt: Prompt, **options: Unpack[GenerationKeywords]) -> Generation:
        """Generate to the end; Ctrl-C ends early with what there is (``finish_reason`` "interrupted").

        Args:
            prompt: The text to continue, or with ``chat`` a user's message or ``{"role", "content"}`` messages.
            options: Fields of :class:`GenerationOptions` and :class:`SamplingOptions`.

        Returns:
            The text, its tokens and timings.

        Raises:
            OptionError: An option is unknown or out of range, or prompt and new tokens do not fit the model's context.
        """
        stream = self.stream(prompt, GenerationOptions.of(**options))
        for _ in stream:
            pass
        return stream.result

    def generate_batch(
        self, prompts: Sequence[Prompt], *, rows: int = 8, **options: Unpack[GenerationKeywords]
    ) -> list[Generation]:
        """Generate many texts, several side by side; a text takes the place of one that has ended.

        Args:
            prompts: As for :meth:`generate`.
            rows: Texts side by side at most.
            options: As for :meth:`generate`, for all of them; ``num_drafts`` must be 0.

        Returns:
            The generations, in the order of the prompts.

        Raises:
            OptionError: As for :meth:`generate`.
        """
        chosen = GenerationOptions.of(**options)
        if chosen.num_drafts:
            raise OptionError(
                "Drafts are for one text at a time.",
                found=f"num_drafts {chosen.num_drafts} for a batch",
                hint="ONNX Runtime's attention checks several tokens of one row only",
            )
        ids = [self._checked_ids(prompt, chosen) for prompt in prompts]
        return generate_batch(self, ids, chosen, rows=rows) if ids else []

    def beam_search(
        self,
        prompt: Prompt,
        *,
        num_beams: int = 4,
        max_new_tokens: int = 128,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
        chat: bool = False,
    ) -> list[Beam]:
        """Search for the most likely texts; see :func:`flashhead_edge.beam_search.beam_search`."""
        ids = self._checked_ids(prompt, GenerationOptions(max_new_tokens, chat=chat))
        return beam_search(
            self,
            ids,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
        )

    def stream(self, prompt: Prompt, options: GenerationOptions | None = None) -> GenerationStream:
        """Generate piece by piece.

        Args:
            prompt: As for :meth:`generate`.
            options: What :meth:`generate` takes as keywords.

        Returns:
            An iterator of pieces of text; its ``result`` is the generation so far. It ends the stream before it: they
            share one cache.

        Raises:
            OptionError: The prompt is empty, or does not fit the model's context together with the new tokens.
        """
        options = options or GenerationOptions()
        start = time.perf_counter()
        prompt_ids = self._checked_ids(prompt, options)
        if self._stream is not None:
            self._stream.close()
        if options.num_drafts and not self._drafts_checked:
            self._drafts_checked = True
            say_if_unlike(self.decoder, self.runtime)
        writer = TextWriter(self, prompt_ids, options, start)
        self._stream = GenerationStream(self, writer, drafter=self._drafter, num_drafts=options.num_drafts)
        return self._stream

    def _open_decoder(self, graph: str) -> AnyDecoder:
        """Open a graph of the bundle on the runtime."""
        body = self.bundle.manifest.body
        assert body is not None
        if self.runtime == "openvino":
            from flashhead_edge.runtimes.openvino_decoder import OpenVinoDecoder

            return OpenVinoDecoder(self.bundle.file(self.bundle.graph(graph).file), body, threads=self._threads)
        file = choose_graph(self.bundle, graph, self._asked_providers)
        return Decoder(file, body, threads=self._threads, providers=self._asked_providers)

    def _checked_ids(self, prompt: Prompt, options: GenerationOptions) -> list[int]:
        """See :func:`flashhead_edge.prompts.prompt_to_ids`."""
        with span(self.recorder.tracer, "prompt to ids"):
            return prompt_to_ids(
                prompt,
                options,
                self.tokenizer,
                vocab_size=self.bundle.manifest.vocab_size,
                max_positions=self._max_positions,
            )


def _choose_runtime(bundle: Bundle, runtime: str, providers: Sequence[str] | None) -> tuple[str, Sequence[str], str]:
    """Runtime, its execution providers, and why."""
    if providers is not None:
        if runtime not in ("auto", "onnxruntime"):
            raise OptionError("Execution providers are ONNX Runtime's.", found=runtime, expected="onnxruntime or auto")
        return "onnxruntime", providers, "its providers were asked for"
    graphs = frozenset(bundle.manifest.graphs)
    choice = select(device_facts(), "text", graphs=graphs, wanted=None if runtime == "auto" else runtime)
    chosen = choice.candidate
    provider = chosen.provider or CPU_PROVIDER
    # ONNX Runtime itself keeps the arithmetic of shapes on the CPU, whatever else runs the graph.
    return chosen.runtime, tuple(dict.fromkeys([provider, CPU_PROVIDER])), choice.reason


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is none of ``known``."""
    if name not in known:
        raise OptionError(f"There is no {kind} {name!r}.", hint=did_you_mean(name, known))
