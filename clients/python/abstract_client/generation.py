"""A continuation as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from abstract_client.errors import closed, data_loss
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.results import Continuation, ModelIdentity, RunMetrics, continuation, model_identity
from abstract_client.results import run_metrics, seconds


@dataclass(frozen=True)
class GeneratedToken:
    """`text` became complete with this token, may be empty, and is never half a character.

    `log_probability`: natural, before temperature and filters.
    """

    token_id: int
    text: str
    log_probability: float


@dataclass(frozen=True)
class GenerationResult:
    """The whole continuation, and what was measured of the run that it continues. Seconds."""

    continuation: Continuation
    prompt_token_ids: tuple[int, ...]
    metrics: RunMetrics | None
    model: ModelIdentity
    queue_seconds: float
    run_seconds: float

    @property
    def text(self) -> str:
        return self.continuation.text

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.continuation.token_ids


class Generation(Iterator[GeneratedToken]):
    """Iterates over the tokens as the server makes them. Leaving a `with` block, or close(), stops the generation.

    >>> with model.generate(chat("How do I poach an egg?"), max_new_tokens=8) as generation:
    ...     words = [token.text for token in generation]
    >>> "".join(words) == generation.result.text, generation.result.continuation.finish_reason
    (True, 'max_new_tokens')
    """

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages
        self._header: pb.RunHeader | None = None
        self._trailing_text = ""
        self._closed = False
        self._result: GenerationResult | None = None

    def __next__(self) -> GeneratedToken:
        for message in self._messages:
            kind = message.WhichOneof("payload")
            if kind == "header":
                self._header = message.header
            elif kind == "token":
                token = message.token
                return GeneratedToken(token.token_id, token.text, token.log_probability)
            elif kind == "summary":
                self._end(message.summary)
        if self._result is None and self._closed:
            raise closed("the generation")
        if self._result is None:
            raise data_loss("the stream ended without a summary")
        raise StopIteration

    def _end(self, summary: pb.GenerateSummary) -> None:
        if self._header is None:
            raise data_loss("the stream began without a header")
        self._trailing_text = summary.trailing_text
        self._result = GenerationResult(
            continuation=continuation(summary.continuation),
            prompt_token_ids=tuple(self._header.prompt_token_ids),
            metrics=run_metrics(summary.metrics) if summary.HasField("metrics") else None,
            model=model_identity(self._header.model),
            queue_seconds=seconds(summary.timings.queue_duration),
            run_seconds=seconds(summary.timings.run_duration),
        )

    def pieces(self) -> Iterator[str]:
        """The text, piece by piece, the last one that the server held back until the end too."""
        for token in self:
            if token.text:
                yield token.text
        if self._trailing_text:
            yield self._trailing_text

    @property
    def result(self) -> GenerationResult:
        """The summary; reads what is left of the stream first."""
        for _ in self:
            pass
        assert self._result is not None
        return self._result

    def close(self) -> None:
        """Stops the generation, if it goes on."""
        self._closed = True
        self._messages.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Generation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
