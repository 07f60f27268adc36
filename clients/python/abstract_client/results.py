"""What the server answers, as plain dataclasses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from abstract_client.checks import whole_number
from abstract_client.prompts import token_ids
from abstract_client.protos import model_service_pb2 as pb


def optional(message: Any, name: str) -> Any:
    """A field's value; None where it is unset."""
    return getattr(message, name) if message.HasField(name) else None


def seconds(duration: Any) -> float:
    return float(duration.seconds + duration.nanos * 1e-9)


@dataclass(frozen=True)
class Metrics:
    """What to measure of a run at the prompt's last position. Model.metrics() makes one of words.

    `refusal_tokens`, `compliance_tokens`: token ids that open the one and the other; the logit difference is of the
    first less the second, so for other tasks these are the right and the wrong answers. `refusal_openings`,
    `compliance_openings`: whole openings, as token ids. `top_tokens`: how many of the likeliest to return, at most
    1000.
    """

    refusal_tokens: Iterable[int] = ()
    compliance_tokens: Iterable[int] = ()
    refusal_openings: Iterable[Iterable[int]] = ()
    compliance_openings: Iterable[Iterable[int]] = ()
    top_tokens: int = 0

    def message(self) -> pb.MetricOptions:
        made = pb.MetricOptions(
            refusal_token_ids=token_ids(self.refusal_tokens, "refusal_tokens"),
            compliance_token_ids=token_ids(self.compliance_tokens, "compliance_tokens"),
            top_token_count=whole_number(self.top_tokens, "top_tokens", most=1000),
        )
        for name in ("refusal_openings", "compliance_openings"):
            for index, opening in enumerate(getattr(self, name)):
                getattr(made, name).add(ids=token_ids(opening, f"{name}[{index}]"))
        return made


@dataclass(frozen=True)
class TokenProbability:
    """One of the likeliest next tokens."""

    token_id: int
    text: str
    probability: float
    logit: float


def token_probability(message: pb.TokenProbability) -> TokenProbability:
    return TokenProbability(message.token_id, message.text, message.probability, message.logit)


@dataclass(frozen=True)
class RunMetrics:
    """Measurements at the last prompt position, in natural logarithms; None where nothing was asked for.

    `logit_difference`: logsumexp of the refusal tokens' logits less that of the compliance tokens'; of single tokens
    their logits' difference. `refusal_log_odds`: log p(R) - log(1 - p(R)). `kl_from_clean`: KL(clean || this) of the
    next token. `..._opening_log_probability`: that the continuation begins with one of the openings.
    """

    logit_difference: float | None
    refusal_log_odds: float | None
    kl_from_clean: float | None
    refusal_opening_log_probability: float | None
    compliance_opening_log_probability: float | None
    top_tokens: tuple[TokenProbability, ...] = ()


METRIC_NAMES = (
    "logit_difference",
    "refusal_log_odds",
    "kl_from_clean",
    "refusal_opening_log_probability",
    "compliance_opening_log_probability",
)


def run_metrics(message: pb.RunMetrics) -> RunMetrics:
    values = {name: optional(message, name) for name in METRIC_NAMES}
    return RunMetrics(**values, top_tokens=tuple(token_probability(token) for token in message.top_tokens))


@dataclass(frozen=True)
class Continuation:
    """`token_ids` include the stop token, if any, `text` does not. `finish_reason`: "stop_token", "max_new_tokens"."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str


def continuation(message: pb.Continuation) -> Continuation:
    reason = pb.FinishReason.Name(message.finish_reason).removeprefix("FINISH_REASON_").lower()
    return Continuation(tuple(message.token_ids), message.text, reason)


@dataclass(frozen=True)
class ModelIdentity:
    """What produced an answer. Results of different `serving_hash`es are not to be mixed."""

    name: str
    serving_hash: str
    model_hash: str
    server_version: str
    message: pb.ModelIdentity = field(repr=False, compare=False)


def model_identity(message: pb.ModelIdentity) -> ModelIdentity:
    return ModelIdentity(message.name, message.serving_hash, message.model_hash, message.server_version, message)


@dataclass(frozen=True)
class ModelInfo:
    """The model that is served, in TransformerLens's words; `message` has all that the server tells."""

    name: str
    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_model: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    n_params: int
    has_tokenizer: bool
    has_chat_template: bool
    stop_token_ids: tuple[int, ...]
    identity: ModelIdentity
    message: pb.GetModelResponse = field(repr=False, compare=False)


def model_info(message: pb.GetModelResponse) -> ModelInfo:
    return ModelInfo(
        name=message.identity.name,
        n_layers=message.layer_count,
        n_heads=message.head_count,
        n_key_value_heads=message.key_value_head_count,
        d_head=message.head_size,
        d_model=message.d_model,
        d_mlp=message.d_ff,
        d_vocab=message.vocabulary_size,
        n_ctx=message.context_length,
        n_params=message.parameter_count,
        has_tokenizer=message.has_tokenizer,
        has_chat_template=message.has_chat_template,
        stop_token_ids=tuple(message.stop_token_ids),
        identity=model_identity(message.identity),
        message=message,
    )


@dataclass(frozen=True)
class HookPoint:
    """A hook point of the loaded model. In `shape`, -1 stands for the number of positions; there is no batch axis."""

    name: str
    shape: tuple[int, ...]
    can_capture: bool
    can_edit: bool


@dataclass(frozen=True)
class Tokens:
    """A prompt as the model reads it. `last_instruction` is set for chats only."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    last_instruction: int | None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PatchResult:
    """A prompt's clean and its patched run. Continuations are set where they were asked for. Seconds."""

    clean: RunMetrics
    patched: RunMetrics
    clean_continuation: Continuation | None
    patched_continuation: Continuation | None
    prompt_token_ids: tuple[int, ...]
    model: ModelIdentity
    run_seconds: float


def patch_result(message: pb.RunWithPatchResponse) -> PatchResult:
    clean, patched = (
        continuation(getattr(message, name)) if message.HasField(name) else None
        for name in ("clean_continuation", "patched_continuation")
    )
    return PatchResult(
        clean=run_metrics(message.clean),
        patched=run_metrics(message.patched),
        clean_continuation=clean,
        patched_continuation=patched,
        prompt_token_ids=tuple(message.prompt_token_ids),
        model=model_identity(message.model),
        run_seconds=seconds(message.timings.run_duration),
    )
