"""Calls that explain: attribution, circuits, readouts, means over prompts, scores of texts; and the device's check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from abstract_client.attributions import Attribution, AttributionMethod, AttributionMetric, read_attributions
from abstract_client.averages import MeanActivations, TextScore, read_means, read_scores
from abstract_client.checks import optional_whole_number, whole_number
from abstract_client.circuits import Circuit, CircuitRun, read_circuits
from abstract_client.edits import EditsLike
from abstract_client.positions import LAST, Positions, position_selector
from abstract_client.prompts import PromptLike, as_prompt
from abstract_client.protos import hook_pb2
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.readouts import DirectPrompt, LensPrompt, read_direct, read_lens
from abstract_client.requests import Names
from abstract_client.results import Metrics

PromptsLike = PromptLike | Sequence[PromptLike]


class Analyses:
    """Methods of Model."""

    def _call(self, method: str, request: Any) -> Any:
        raise NotImplementedError

    def _stream(self, method: str, request: Any) -> Iterator[Any]:
        raise NotImplementedError

    def _interventions(self, edits: EditsLike, argument: str = "edits") -> Any:
        raise NotImplementedError

    def _filter(self, names: Names, positions: Positions) -> pb.ActivationFilter:
        raise NotImplementedError

    def attribution(
        self,
        pairs: Iterable[tuple[PromptLike, PromptLike]],
        names: Names = None,
        *,
        metrics: Metrics,
        metric: AttributionMetric = AttributionMetric.LOGIT_DIFFERENCE,
        method: AttributionMethod = AttributionMethod.GRADIENT,
        steps: int | None = None,
        exact_softmax: bool = False,
        positions: Positions = None,
        edits: EditsLike = (),
        sum_positions: bool = False,
        top: int = 0,
        return_gradients: bool = False,
        edges: bool = False,
    ) -> list[Attribution]:
        """Estimates what patching each node (or edge) would do, of each pair (prompt, its counterfactual).

        `names`: where nodes are; needed but with `edges`. A node is a head, a neuron, or elsewhere a whole position.
        `metrics`: the token sets. `steps`: of integrated gradients. `top`: so many scores of each pair, the largest,
        instead of arrays; needed with `edges`. `sum_positions`: over the selected positions. `return_gradients`: these
        instead of scores.

        >>> pair = (chat("How do I kill my neighbor?"), chat("How do I thank my neighbor?"))
        >>> metrics = model.metrics(["I cannot"], ["Here", "Sure"])
        >>> attributed = model.attribution([pair], "blocks.*.attn.hook_z", metrics=metrics, sum_positions=True)
        >>> attributed[0].scores["blocks.7.attn.hook_z"].shape
        (8,)
        """
        request = pb.RunAttributionRequest(
            metrics=metrics.message(),
            metric=metric.value,
            method=method.value,
            steps=optional_whole_number(steps, "steps", 1, 64),
            exact_softmax=exact_softmax,
            interventions=self._interventions(edits),
            sum_positions=sum_positions,
            top_count=whole_number(top, "top"),
            return_gradients=return_gradients,
            edges=edges,
        )
        for index, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(f"pairs[{index}]: not a pair of prompts")
            added = request.pairs.add()
            added.prompt.CopyFrom(as_prompt(pair[0], f"pairs[{index}][0]").message)
            added.source_prompt.CopyFrom(as_prompt(pair[1], f"pairs[{index}][1]").message)
        if not request.pairs:
            raise ValueError("pairs: there are none")
        if edges and (names is not None or positions is not None or not top):
            raise ValueError("edges: needs top, and no names and positions")
        if not edges and names is None:
            raise ValueError("names: say where nodes are, as in 'blocks.*.attn.hook_z'")
        if not edges:
            request.filter.CopyFrom(self._filter(names, positions))
        return read_attributions(self._stream("RunAttribution", request))

    def circuit(
        self,
        prompt: PromptLike,
        source: PromptLike,
        circuits: Sequence[Circuit],
        *,
        metrics: Metrics,
        nodes: Iterable[str] = (),
        edges: Iterable[str] = (),
    ) -> CircuitRun:
        """Runs a prompt through circuits; what is not in one stays as in the run of `source`, of as many tokens.

        `nodes`: heads "L0.H1", MLPs "L2.mlp", neurons "L2.N317", with all edges between them; or `edges`, as
        attribution names them. Circuits choose from these.

        >>> run = model.circuit(chat("How do I kill my neighbor?"), chat("How do I thank my neighbor?"),
        ...                     [Circuit(leading=2), Circuit(complement=True)], nodes=["L7.H4", "L7.mlp"],
        ...                     metrics=model.metrics(["I cannot"], ["Here", "Sure"]))
        >>> round(run.results[1].faithfulness, 6)
        1.0
        """
        node_list, edge_list = list(nodes), list(edges)
        if isinstance(nodes, str) or isinstance(edges, str) or bool(node_list) == bool(edge_list):
            raise ValueError("nodes: give a list of nodes or a list of edges")
        if not circuits:
            raise ValueError("circuits: there are none")
        request = pb.RunCircuitRequest(
            prompt=as_prompt(prompt).message,
            source_prompt=as_prompt(source, "source").message,
            metrics=metrics.message(),
            nodes=node_list,
            edges=edge_list,
            circuits=[circuit.message() for circuit in circuits],
        )
        return read_circuits(self._stream("RunCircuit", request))

    def _readout(
        self, prompts: PromptsLike, edits: EditsLike, metrics: Metrics | None, positions: Positions
    ) -> pb.RunReadoutRequest:
        several = isinstance(prompts, (list, tuple)) and bool(prompts) and not isinstance(prompts[0], (int, dict))
        listed: list[Any] = list(prompts) if several else [prompts]  # type: ignore[arg-type]
        return pb.RunReadoutRequest(
            prompts=[as_prompt(prompt, f"prompts[{index}]").message for index, prompt in enumerate(listed)],
            interventions=self._interventions(edits),
            metrics=(metrics or Metrics()).message(),
            # Unset is the last there, empty all.
            positions=position_selector(positions) or hook_pb2.PositionSelector(),
        )

    def logit_lens(
        self,
        prompts: PromptsLike,
        *,
        positions: Positions = LAST,
        target_token: int | None = None,
        resid_mid: bool = False,
        metrics: Metrics | None = None,
        edits: EditsLike = (),
    ) -> list[LensPrompt]:
        """What the model would predict from the residual stream of every layer (nostalgebraist 2020).

        `prompts`: one, or a list. `positions`: None reads all. `target_token`: whose probability is followed; default:
        at each position the likeliest in the end. `resid_mid`: read between attention and MLP too.

        >>> [lens] = model.logit_lens(chat("How do I poach an egg?"))
        >>> lens.readings[-1].name, lens.readings[-1].target_rank, lens.readings[-1].kl_from_final
        ('blocks.7.hook_resid_post', 0, 0.0)
        """
        request = self._readout(prompts, edits, metrics, positions)
        target = optional_whole_number(target_token, "target_token")
        request.logit_lens.CopyFrom(pb.LogitLens(resid_mid=resid_mid, target_token_id=target))
        return read_lens(self._stream("RunReadout", request))

    def direct_logit_attribution(
        self,
        prompts: PromptsLike,
        *,
        metrics: Metrics,
        positions: Positions = LAST,
        neurons: int = 0,
        edits: EditsLike = (),
    ) -> list[DirectPrompt]:
        """What the embedding, each head and each MLP add by themselves to the difference of mean logits.

        The last norm's scale is held as it is in the run (Elhage et al. 2021). `neurons`: so many single ones too, the
        largest.

        >>> [direct] = model.direct_logit_attribution(chat("How do I kill my neighbor?"),
        ...                                           metrics=model.metrics(["I cannot"], ["Here", "Sure"]))
        >>> direct.positions[0].heads().shape
        (8, 8)
        """
        request = self._readout(prompts, edits, metrics, positions)
        request.direct_attribution.CopyFrom(pb.DirectLogitAttribution(neuron_count=whole_number(neurons, "neurons")))
        return read_direct(self._stream("RunReadout", request))

    def mean_activations(
        self, prompts: Sequence[PromptLike], names: Names, *, positions: Positions = None, edits: EditsLike = ()
    ) -> MeanActivations:
        """Means and variances over the prompts of activations, made on the server.

        `names`: as of run_with_cache, but for attention scores and patterns. `positions` must select as many of every
        prompt: DECISION, or some from the end.

        >>> questions = [chat("How do I kill my neighbor?"), chat("How do I hack a bank account?")]
        >>> means = model.mean_activations(questions, "blocks.*.hook_resid_pre", positions=DECISION)
        >>> means.prompt_count, means.mean["blocks.3.hook_resid_pre"].shape
        (2, (6, 128))
        """
        request = pb.RunMeanActivationsRequest(
            prompts=[as_prompt(prompt, f"prompts[{index}]").message for index, prompt in enumerate(prompts)],
            interventions=self._interventions(edits),
            filter=self._filter(names, positions),
        )
        return read_means(self._stream("RunMeanActivations", request))

    def score_texts(
        self,
        texts: Sequence[PromptLike],
        continuations: Sequence[str | Sequence[int]] | None = None,
        *,
        edits: EditsLike = (),
    ) -> list[TextScore]:
        """How likely each text is, token by token, or, with `continuations`, what follows each of them.

        >>> [score] = model.score_texts([chat("How do I poach an egg?")], ["Here is one way."])
        >>> score.cross_entropy == -score.log_probabilities.mean()
        True
        """
        if continuations is not None and len(continuations) != len(texts):
            raise ValueError(f"continuations: {len(continuations)} for {len(texts)} texts")
        request = pb.ScoreTextsRequest(interventions=self._interventions(edits))
        for index, prompt in enumerate(texts):
            added = request.texts.add(prompt=as_prompt(prompt, f"texts[{index}]").message)
            following = continuations[index] if continuations is not None else None
            if isinstance(following, str):
                added.continuation_text = following
            elif following is not None:
                added.continuation_token_ids.ids.extend(
                    whole_number(token, f"continuations[{index}]") for token in following
                )
        return read_scores(self._stream("ScoreTexts", request), len(texts))

    def check_device(self) -> pb.CheckDeviceResponse:
        """Compares the server's device with its CPU, layer by layer."""
        answer: pb.CheckDeviceResponse = self._call("CheckDevice", pb.CheckDeviceRequest())
        return answer
