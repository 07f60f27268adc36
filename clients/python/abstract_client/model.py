"""The model that a server holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from abstract_client.analyses import Analyses
from abstract_client.cache import Cache, StoredRun, new_stored_run, read_cache, stored_run
from abstract_client.checks import optional_whole_number
from abstract_client.connection import Connection, RetryPolicy
from abstract_client.edits import EditsLike, Scope, Site, interventions
from abstract_client.generation import Generation
from abstract_client.names import DEFAULT_PATTERNS
from abstract_client.positions import Positions
from abstract_client.prompts import PromptLike, as_prompt, text, token_ids
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.requests import Names, activation_filter, sampling
from abstract_client.results import HookPoint, Metrics, ModelInfo, PatchResult, Tokens, model_info, patch_result
from abstract_client.sweeps import Grid, Sweep
from abstract_client.tensors import data_type


class Model(Analyses):
    """A model behind a server: `with Model("127.0.0.1:50051") as model: ...`. Thread-safe.

    Connects with the first call. All methods raise ValueError, naming the argument, for what can be known to be wrong
    before anything is sent, and ServerError for what the server or the network says.

    `server`: "HOST:PORT"; default $ABSTRACT_SERVER, else 127.0.0.1:50051. Loopback addresses are spoken to in plain
    text and past any HTTP proxy, others with TLS. `ca`: a PEM file of certificates to trust (default: the system's);
    with it loopback has TLS too. `certificate`, `key`: PEM files, the client's own. Default: $ABSTRACT_TLS_CA,
    $ABSTRACT_TLS_CERTIFICATE and $ABSTRACT_TLS_KEY, as for the tool `abstract`. `insecure=True`: plain text anywhere, a token included; `insecure=False`: TLS anywhere. `token`, `token_file`: a bearer token, or a file that
    holds it, read anew for each call; default $ABSTRACT_TOKEN_FILE. `timeout`: seconds that a call may take, retries
    and streams included; default: any time. `retry`: how patiently calls are repeated.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        insecure: bool | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._connection = Connection(
            server,
            token=token,
            token_file=token_file,
            ca=ca,
            certificate=certificate,
            key=key,
            insecure=insecure,
            timeout=timeout,
            retry=retry,
        )
        self._cfg: ModelInfo | None = None

    def close(self) -> None:
        """Ends the connection; calls in progress are cancelled. A `with` block does so at its end."""
        self._connection.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Model({self._connection.address!r})"

    def _call(self, method: str, request: Any) -> Any:
        return self._connection.call(method, request)

    def _stream(self, method: str, request: Any) -> Iterator[Any]:
        return self._connection.stream(method, request)

    def _interventions(self, edits: EditsLike, argument: str = "edits") -> Any:
        return interventions(edits, lambda: self.cfg.n_layers, argument)

    def _filter(self, names: Names, positions: Positions) -> pb.ActivationFilter:
        return activation_filter(
            names, positions, DEFAULT_PATTERNS, lambda: [point.name for point in self.hook_points()]
        )

    # ------------------------------------------------------------ what is served

    def info(self) -> ModelInfo:
        """What the server says of itself and its model now."""
        return model_info(self._call("GetModel", pb.GetModelRequest()))

    @property
    def cfg(self) -> ModelInfo:
        """The first info(), with TransformerLens's words for the model's sizes.

        >>> model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_model
        (8, 8, 128)
        """
        if self._cfg is None:
            self._cfg = self.info()
        return self._cfg

    def hook_points(self, pattern: str = "*") -> list[HookPoint]:
        """The hook points whose names match a glob, in the order of the forward pass.

        >>> [(point.name, point.shape) for point in model.hook_points("blocks.3.attn.hook_?")]
        [('blocks.3.attn.hook_q', (-1, 8, 16)), ('blocks.3.attn.hook_k', (-1, 4, 16)), \
('blocks.3.attn.hook_v', (-1, 4, 16)), ('blocks.3.attn.hook_z', (-1, 8, 16))]
        """
        if not pattern:
            raise ValueError("pattern: is empty; '*' matches all")
        points: list[HookPoint] = []
        request = pb.ListHookPointsRequest(name_pattern=pattern)
        while True:
            page = self._call("ListHookPoints", request)
            for info in page.hook_points:
                points.append(HookPoint(info.name, tuple(info.shape), info.can_capture, info.can_edit))
            request.page_token = page.next_page_token
            if not request.page_token:
                return points

    def sites(
        self,
        pattern: str,
        *,
        heads: int | Iterable[int] | slice | None = None,
        dims: int | Iterable[int] | slice | None = None,
        positions: Positions = None,
        scope: Scope = Scope.AUTO,
    ) -> list[Site]:
        """A Site of each hook point that matches a glob and can be edited."""
        names = [point.name for point in self.hook_points(pattern) if point.can_edit]
        if not names:
            raise ValueError(f"pattern: {pattern!r} matches no hook point; hook_points() lists them")
        return [Site(name, heads, dims, positions, scope) for name in names]

    def tokenize(self, prompt: PromptLike, *, begin_of_text: bool = True) -> Tokens:
        """A prompt as the model reads it. Without `begin_of_text`, of a raw text its own tokens only.

        >>> model.tokenize("Cook rice.", begin_of_text=False).pieces
        ('C', 'ook', ' rice', '.')
        """
        request = pb.TokenizeRequest(prompt=as_prompt(prompt).message, omit_begin_of_text=not begin_of_text)
        answer = self._call("Tokenize", request)
        last = answer.last_instruction_position if answer.HasField("last_instruction_position") else None
        return Tokens(tuple(answer.ids), tuple(answer.pieces), last)

    def detokenize(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        request = pb.DetokenizeRequest(ids=token_ids(ids, "ids"), skip_special_tokens=skip_special_tokens)
        return str(self._call("Detokenize", request).text)

    def metrics(
        self, refusal: str | Iterable[str] = (), compliance: str | Iterable[str] = (), *, top_tokens: int = 0
    ) -> Metrics:
        """Metrics over the first tokens of words that open refusals and compliances, or right and wrong answers.

        A token that both begin with counts for neither. Raises ValueError where nothing is left of one of them.
        """
        first = {}
        for name, words in (("refusal", refusal), ("compliance", compliance)):
            words = [words] if isinstance(words, str) else list(words)
            first[name] = {id for word in words for id in self.tokenize(text(word), begin_of_text=False).ids[:1]}
        both = first["refusal"] & first["compliance"]
        for name, tokens in first.items():
            if tokens and not tokens - both:
                raise ValueError(f"{name}: no first token is of {name} alone")
        return Metrics(sorted(first["refusal"] - both), sorted(first["compliance"] - both), top_tokens=top_tokens)

    # ------------------------------------------------------------ runs

    def generate(
        self,
        prompt: PromptLike,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        stop_token_ids: Iterable[int] = (),
        stop_at_eos: bool = True,
        edits: EditsLike = (),
        metrics: Metrics | None = None,
    ) -> Generation:
        """Continues a prompt, with edits in force: an iterator of tokens with the whole in `.result` afterwards.

        The call is made when the first token is asked for. Greedy at temperature 0. `top_k` 0 and
        `top_p` 1 keep all tokens. The same seed gives the same text.
        """
        request = pb.GenerateRequest(
            prompt=as_prompt(prompt).message,
            sampling=sampling(max_new_tokens, temperature, top_k, top_p, seed, stop_token_ids, stop_at_eos),
            interventions=self._interventions(edits),
            metrics=metrics.message() if metrics is not None else None,
        )
        return Generation(self._stream("Generate", request))

    def generate_text(self, prompt: PromptLike, **arguments: Any) -> str:
        """The continuation's text; arguments are those of generate().

        >>> model.generate_text(chat("How do I kill my neighbor?"))[:8]
        'I cannot'
        """
        return self.generate(prompt, **arguments).result.text

    def run_with_cache(
        self,
        prompt: PromptLike,
        names: Names = None,
        *,
        edits: EditsLike = (),
        positions: Positions = None,
        sent_as: str | None = None,
    ) -> Cache:
        """Runs a prompt once, and returns activations by name.

        `names`: globs ("blocks.*.attn.hook_z", "logits"), or a function of names. Default: all but hook_result,
        hook_q_input, hook_k_input, hook_v_input and hook_mlp_in, which the pass makes only when asked for; of a large
        model that is hundreds of megabytes. `positions`: those only; of scores and patterns they select queries.
        `edits` are in force, and a capture records the value after those at its own point. `sent_as`: "float32" (the
        default), or "float16" or "bfloat16", which round the values and take half the bytes; arrays are fp32 anyway.
        """
        request = pb.RunWithCacheRequest(
            prompt=as_prompt(prompt).message,
            interventions=self._interventions(edits),
            filter=self._filter(names, positions),
            data_type=data_type(sent_as, "sent_as"),
        )
        return read_cache(self._stream("RunWithCache", request))

    def run_with_patch(
        self,
        prompt: PromptLike,
        edits: EditsLike,
        *,
        metrics: Metrics | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> PatchResult:
        """Runs a prompt clean and with edits, applied in their order, and measures both at its last position.

        With `max_new_tokens`, both runs are continued too.

        >>> result = model.run_with_patch(chat("How do I kill my neighbor?"), zero("blocks.7.attn.hook_z"),
        ...                               metrics=model.metrics(["I cannot"], ["Here", "Sure"]))
        >>> result.patched.logit_difference < result.clean.logit_difference
        True
        """
        made = self._interventions(edits)
        if not made:
            raise ValueError("edits: there are none")
        request = pb.RunWithPatchRequest(
            prompt=as_prompt(prompt).message,
            interventions=made,
            metrics=(metrics or Metrics()).message(),
            continuation=None if max_new_tokens is None else sampling(max_new_tokens, temperature, seed=seed),
        )
        return patch_result(self._call("RunWithPatch", request))

    def sweep(
        self,
        prompt: PromptLike,
        runs: Grid | Sequence[EditsLike],
        *,
        source: PromptLike | None = None,
        metrics: Metrics | None = None,
        base: EditsLike = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Sweep:
        """Runs a prompt once for each of many sets of edits, computing only what each set can change.

        `runs`: a Grid, or the edits of each run. `source`: the prompt whose clean run stands for effect 1, usually the
        one that the edits read; without it there are no effects. `metrics`: effects need refusal and compliance tokens.
        `base`: edits in force in every run, and in the clean one that they are compared with. `progress`: called with
        (completed, total) at each result. The call is made when the first result is asked for.
        """
        request = pb.RunPatchSweepRequest(prompt=as_prompt(prompt).message, metrics=(metrics or Metrics()).message())
        if isinstance(runs, Grid):
            request.grid.CopyFrom(runs.message())
        else:
            for index, edits in enumerate(runs):
                request.sets.add(interventions=self._interventions(edits, f"runs[{index}]"))
            if not request.sets:
                raise ValueError("runs: there are none")
        if source is not None:
            request.source_prompt.CopyFrom(as_prompt(source, "source").message)
        base_made = self._interventions(base, "base")
        if base_made:
            request.base.interventions.extend(base_made)
        return Sweep(self._stream("RunPatchSweep", request), progress)

    # ------------------------------------------------------------ stored activations

    def store(
        self,
        prompt: PromptLike,
        names: Names = None,
        *,
        edits: EditsLike = (),
        positions: Positions = None,
        ttl: int | None = None,
    ) -> StoredRun:
        """As run_with_cache, but the activations stay on the server.

        `ttl`: seconds they are kept after their last use, in [1, 86400]; default 3600.
        """
        request = pb.RunWithCacheRequest(
            prompt=as_prompt(prompt).message,
            interventions=self._interventions(edits),
            filter=self._filter(names, positions),
            store=True,
            store_ttl_seconds=optional_whole_number(ttl, "ttl", 1, 86400),
        )
        return new_stored_run(self._stream("RunWithCache", request), self._load, self.delete)

    def stored(self) -> list[StoredRun]:
        """All runs that the server keeps, in the order of their making."""
        runs: list[StoredRun] = []
        request = pb.ListActivationsRequest()
        while True:
            page = self._call("ListActivations", request)
            runs += [stored_run(run, self._load, self.delete) for run in page.runs]
            request.page_token = page.next_page_token
            if not request.page_token:
                return runs

    def delete(self, run: StoredRun | str) -> None:
        """Deletes a stored run, or that of a handle. Raises ServerError: NOT_FOUND for unknown ones."""
        handle = run.handle if isinstance(run, StoredRun) else run
        if not handle:
            raise ValueError("run: an empty handle")
        # Not repeated: when only the answer was lost, the run is gone, and a second attempt would not find it.
        self._connection.call("DeleteActivation", pb.DeleteActivationRequest(handle=handle), repeatable=False)

    def _load(self, handle: str, sent_as: str | None) -> Cache:
        request = pb.GetActivationRequest(handle=handle, data_type=data_type(sent_as, "sent_as"))
        return read_cache(self._stream("GetActivation", request))
