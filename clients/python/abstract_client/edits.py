"""Where a forward pass is changed (Site), what values come from (Source), and how (zero, replace, add, ...)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace as _with
from enum import Enum
from typing import Any, Union

import numpy.typing as npt

from abstract_client.checks import finite_number, optional_whole_number, seed_number
from abstract_client.names import parse_name
from abstract_client.positions import Positions, indices, position_selector
from abstract_client.prompts import Prompt, as_prompt
from abstract_client.protos import hook_pb2
from abstract_client.tensors import to_tensor


class Scope(Enum):
    """Which positions of a generation an edit touches.

    AUTO is PROMPT where positions are named or there is one value per prompt position, and else both. With GENERATED
    the site names no positions.
    """

    AUTO = hook_pb2.INTERVENTION_SCOPE_UNSPECIFIED
    PROMPT = hook_pb2.INTERVENTION_SCOPE_PROMPT
    GENERATED = hook_pb2.INTERVENTION_SCOPE_GENERATED
    PROMPT_AND_GENERATED = hook_pb2.INTERVENTION_SCOPE_PROMPT_AND_GENERATED


class Alignment(Enum):
    """How positions correspond to those of a source run of another length: by index or by distance from the end.

    AUTO: START for prompts of one length; else positions counted from the end or named correspond from the end, and
    others are an error.
    """

    AUTO = hook_pb2.POSITION_ALIGNMENT_UNSPECIFIED
    START = hook_pb2.POSITION_ALIGNMENT_START
    END = hook_pb2.POSITION_ALIGNMENT_END


@dataclass(frozen=True)
class Site:
    """A hook point and the part of it that an edit touches; None selects everything.

    `name`: TransformerLens's, "blocks.3.attn.hook_z"; "blocks.*.attn.hook_z" is that of every layer. `heads`: key and
    value heads at hook_k, hook_v and hook_rot_k. `dims`: indices on the last axis: neurons, residual dimensions, keys
    of a pattern, token ids at "logits". `positions`: indices (negative from the end), slices, named positions.

    >>> Site("blocks.3.attn.hook_z", heads=[1, 2], positions=-1)
    Site(name='blocks.3.attn.hook_z', heads=[1, 2], dims=None, positions=-1, scope=<Scope.AUTO: 0>)
    """

    name: str
    heads: int | Iterable[int] | slice | None = None
    dims: int | Iterable[int] | slice | None = None
    positions: Positions = None
    scope: Scope = Scope.AUTO

    def __post_init__(self) -> None:
        for field in ("heads", "dims", "positions"):  # an iterator would be empty when it is read again
            value = getattr(self, field)
            if isinstance(value, Iterable) and not isinstance(value, (str, list, tuple)):
                object.__setattr__(self, field, list(value))
        if not isinstance(self.name, str):
            raise ValueError(f"site: {self.name!r} is no hook name")
        parse_name(self.name)
        self.selector()

    @property
    def point(self) -> int:
        """The HookPoint of hook.proto."""
        return parse_name(self.name)[0]

    @property
    def layer(self) -> int | None:
        """None of "blocks.*."; 0 where there are no layers."""
        return parse_name(self.name)[1]

    def in_layer(self, layer: int) -> Site:
        """The same of one layer, of a site of every layer."""
        return _with(self, name=self.name.replace("*", str(layer)))

    def message(self, argument: str = "site") -> hook_pb2.HookSite:
        """The site without its selector, as it is sent."""
        if self.layer is None:
            raise ValueError(f"{argument}: {self.name!r} is that of every layer; one layer is needed here")
        return hook_pb2.HookSite(point=self.point, layer=self.layer)  # type: ignore[arg-type]

    def selector(self) -> hook_pb2.Selector:
        """The part, as it is sent."""
        return hook_pb2.Selector(
            heads=indices(self.heads, "heads"),
            dims=indices(self.dims, "dims"),
            positions=position_selector(self.positions),
            scope=self.scope.value,
        )


SiteLike = Union[Site, str]


def _site(site: SiteLike, argument: str = "site") -> Site:
    if isinstance(site, Site):
        return site
    if not isinstance(site, str):
        raise ValueError(f"{argument}: {site!r} is no Site and no hook name")
    try:
        return Site(site)
    except ValueError as error:
        raise ValueError(str(error).replace("site:", f"{argument}:", 1)) from None


@dataclass(frozen=True)
class Source:
    """Values of another run, more closely told than by the run alone.

    `run`: a prompt, whose clean run the server makes within the request, or a StoredRun. `site`: of a
    stored run, if not the edit's own. `positions`: of the source run, as many as the edit's; None: the edit's own,
    resolved against the source.
    """

    run: Any
    site: SiteLike | None = None
    positions: Positions = None
    alignment: Alignment = Alignment.AUTO

    def message(self, argument: str) -> hook_pb2.ActivationSource:
        """What is sent."""
        made = hook_pb2.ActivationSource(
            positions=position_selector(self.positions, f"{argument}.positions"), alignment=self.alignment.value
        )
        handle = getattr(self.run, "handle", None)
        if isinstance(handle, str):
            made.stored.handle = handle
            if self.site is not None:
                made.stored.site.CopyFrom(_site(self.site, f"{argument}.site").message(f"{argument}.site"))
        elif self.site is not None:
            raise ValueError(f"{argument}.site: only a stored run has another site than the edit's")
        else:
            made.prompt.prompt.CopyFrom(as_prompt(self.run, argument).message)
        return made


def _run_source(source: Any, argument: str) -> hook_pb2.ActivationSource:
    return (source if isinstance(source, Source) else Source(source)).message(argument)


def _run_sources(sources: Any) -> list[hook_pb2.ActivationSource]:
    if isinstance(sources, (str, Prompt, Source)) or hasattr(sources, "handle"):
        sources = [sources]
    made = [_run_source(source, f"sources[{index}]") for index, source in enumerate(sources)]
    if not made:
        raise ValueError("sources: there are none")
    return made


class Edit:
    """A change of the forward pass at a site, made by the functions of this module."""

    def __init__(self, site: SiteLike, label: str, content: hook_pb2.Intervention) -> None:
        self.site = _site(site)
        self._label = label
        self._content = content

    def __repr__(self) -> str:
        return f"{self._label}({self.site!r})"

    def in_layers(self, layer_count: int) -> list[Edit]:
        """This edit, or one for each layer where the site is that of every layer."""
        if self.site.layer is not None:
            return [self]
        return [Edit(self.site.in_layer(layer), self._label, self._content) for layer in range(layer_count)]

    def prototype(self) -> hook_pb2.Intervention:
        """The intervention without its site, as a grid takes it."""
        made = hook_pb2.Intervention(selector=self.site.selector())
        made.MergeFrom(self._content)
        return made

    def message(self) -> hook_pb2.Intervention:
        """What is sent."""
        made = self.prototype()
        made.site.CopyFrom(self.site.message())
        return made


def _edit(site: SiteLike, label: str, **fields: Any) -> Edit:
    return Edit(site, label, hook_pb2.Intervention(**fields))


def zero(site: SiteLike) -> Edit:
    """Sets the part to 0 (zero ablation)."""
    return _edit(site, "zero", zeroing=hook_pb2.Zeroing())


def replace(site: SiteLike, source: Any) -> Edit:
    """Sets the part to a source's values (activation patching).

    `source`: a prompt (made by chat, text or tokens; a str is raw text), a stored run, a Source, or an array of the
    part: [positions or 1, heads, width], [heads, width] or [width] at points with a head axis, else [positions or 1,
    width] or [width], in ascending order of positions, heads and dims; what is left out, or 1, is broadcast.
    A list of ints is an array here: write tokens([...]) for a prompt.
    """
    if isinstance(source, (str, Prompt, Source)) or hasattr(source, "handle"):
        return _edit(site, "replace", replacement=hook_pb2.Replacement(source=_run_source(source, "source")))
    values = hook_pb2.ActivationSource(tensor=to_tensor(source, "source"))
    return _edit(site, "replace", replacement=hook_pb2.Replacement(source=values))


def mean(site: SiteLike, sources: Any, *, per_position: bool = False) -> Edit:
    """Sets the part to its mean over runs (mean ablation).

    `sources`: prompts, stored runs or Sources. One mean over all of them and all their selected positions, or with
    `per_position` one for each position, over the sources, counted from the end.
    """
    axis = hook_pb2.MEAN_AXIS_SOURCES if per_position else hook_pb2.MEAN_AXIS_UNSPECIFIED
    content = hook_pb2.MeanReplacement(sources=_run_sources(sources), axis=axis)
    return _edit(site, "mean", mean_replacement=content)


def resample(site: SiteLike, sources: Any, *, seed: int = 0) -> Edit:
    """Sets the part to that of one of the sources, drawn uniformly by `seed` (resample ablation)."""
    content = hook_pb2.Resampling(sources=_run_sources(sources), seed=seed_number(seed))
    return _edit(site, "resample", resampling=content)


def add(site: SiteLike, vector: npt.ArrayLike, scale: float = 1.0) -> Edit:
    """Adds `scale` times a vector (activation steering), of the shapes that replace() takes."""
    content = hook_pb2.Addition(vector=to_tensor(vector, "vector"), scale=finite_number(scale, "scale"))
    return _edit(site, "add", addition=content)


def scale(site: SiteLike, factor: float) -> Edit:
    """Multiplies the part."""
    return _edit(site, "scale", scaling=hook_pb2.Scaling(factor=finite_number(factor, "factor")))


def project_out(site: SiteLike, direction: npt.ArrayLike) -> Edit:
    """Removes the component along a direction: x - (x . d) d / |d|^2 (directional ablation, Arditi et al. 2024).

    `direction`: [width] or [heads, width] of the part; of any length but 0.
    """
    tensor = to_tensor(direction, "direction")
    if not any(tensor.data):
        raise ValueError("direction: is zero")
    return _edit(site, "project_out", projection_removal=hook_pb2.ProjectionRemoval(direction=tensor))


def noise(site: SiteLike, sigma: float, *, seed: int = 0) -> Edit:
    """Adds Gaussian noise of standard deviation `sigma`; what is added depends on seed, site, position and element."""
    if finite_number(sigma, "sigma") < 0:
        raise ValueError(f"sigma: {sigma} is negative")
    content = hook_pb2.NoiseAddition(standard_deviation=float(sigma), seed=seed_number(seed))
    return _edit(site, "noise", noise_addition=content)


def path(site: SiteLike, sender: SiteLike, source: Any, *, sender_head: int | None = None) -> Edit:
    """Lets one reader alone see what a sender writes in another run (path patching, Wang et al. 2022).

    `site`: the reader: hook_q_input, hook_k_input, hook_v_input, hook_mlp_in, or the last hook_resid_post for what the
    logits are made from. `sender`: hook_embed, attn.hook_result (with `sender_head`), hook_attn_out or hook_mlp_out,
    before it. `source`: a prompt or a stored run that has the sender.
    """
    content = hook_pb2.PathPatch(
        sender=_site(sender, "sender").message("sender"),
        sender_head=optional_whole_number(sender_head, "sender_head"),
        source=_run_source(source, "source"),
    )
    return _edit(site, "path", path_patch=content)


EditsLike = Union[Edit, Iterable[Edit]]


def interventions(edits: EditsLike, layer_count: Callable[[], int], argument: str = "edits") -> Any:
    """The Interventions of edits, in order. `layer_count` is asked where a site is that of every layer."""
    made = []
    if not isinstance(edits, (Edit, Iterable)):
        raise ValueError(f"{argument}: {edits!r} is neither an edit nor a list of them")
    for index, edit in enumerate([edits] if isinstance(edits, Edit) else edits):
        if not isinstance(edit, Edit):
            raise ValueError(f"{argument}[{index}]: {edit!r} is no edit; zero(), replace() and so on make them")
        everywhere = edit.site.layer is None
        made += [one.message() for one in (edit.in_layers(layer_count()) if everywhere else [edit])]
    return made
