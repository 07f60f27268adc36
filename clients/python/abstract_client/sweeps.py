"""Many patched runs of one prompt: what they are (Grid), and their results as they come (Sweep)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from abstract_client.checks import optional_whole_number
from abstract_client.edits import Edit
from abstract_client.errors import closed, data_loss
from abstract_client.names import parse_name, site_name
from abstract_client.positions import indices
from abstract_client.protos import hook_pb2
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.results import METRIC_NAMES, ModelIdentity, RunMetrics, model_identity, optional, run_metrics
from abstract_client.results import seconds

_AXES = {
    "position": pb.SWEEP_AXIS_POSITION,
    "head": pb.SWEEP_AXIS_HEAD,
    "dims": pb.SWEEP_AXIS_DIM_GROUP,
}


@dataclass(frozen=True)
class Grid:
    """One edit, made in one run for each combination of points, layers and the axes in `by`.

    `edit`: its site's name gives point and layer ("blocks.*." is every layer); the positions, heads and dims that the
    site names are the ones that are split or kept. `by`: "position", "head", "dims", or several; points and layers
    always are. `points`: more hook names of the same form, instead of the edit's own. `layers`: those only.
    `dims_per_group`: with "dims", how many neighbours are edited together.

    >>> grid = Grid(zero("blocks.*.attn.hook_z"), by="head")
    """

    edit: Edit
    by: str | Iterable[str] = ()
    points: Iterable[str] | None = None
    layers: int | Iterable[int] | slice | None = None
    dims_per_group: int | None = None

    def message(self) -> pb.SweepGrid:
        if not isinstance(self.edit, Edit):
            raise ValueError(f"edit: {self.edit!r} is no edit; zero(), replace() and so on make them")
        axes = [self.by] if isinstance(self.by, str) else list(self.by)
        for axis in axes:
            if axis not in _AXES:
                raise ValueError(f"by: {axis!r} is none of {', '.join(_AXES)}")
        if ("dims" in axes) != (self.dims_per_group is not None):
            raise ValueError("dims_per_group: goes with by='dims', and only with it")
        group = optional_whole_number(self.dims_per_group, "dims_per_group", least=1)
        layers = indices(self.layers, "layers")
        names = [self.edit.site.name] if self.points is None else list(self.points)
        if isinstance(self.points, str) or not names:
            raise ValueError("points: a list of hook names, of one or more")
        places = [parse_name(name) for name in names]
        named = _layers_of(names, places)
        if layers and named:
            raise ValueError(f"layers: the site names layer {named[0]} already; write blocks.*.")
        layers = layers or named
        return pb.SweepGrid(
            prototype=self.edit.prototype(),
            points=[hook_pb2.HookPoint.Name(point) for point, _ in places],
            layers=layers,
            axes=[_AXES[axis] for axis in axes],
            dims_per_group=group or 0,
        )


def _layers_of(names: list[str], places: list[tuple[int, int | None]]) -> list[int]:
    layers = {layer for name, (_, layer) in zip(names, places) if name.startswith("blocks.")}
    if len(layers) > 1:
        raise ValueError("points: they name different layers; write blocks.*. and give `layers`")
    return [layer for layer in layers if layer is not None]


@dataclass(frozen=True)
class SweepSite:
    """What one run of a grid touched. `position` is absolute; [dim_begin, dim_end) a group on the last axis."""

    name: str
    layer: int
    position: int | None
    head: int | None
    dim_begin: int | None
    dim_end: int | None


@dataclass(frozen=True)
class SweepResult:
    """One run. `index`: in the sets, or in the grid's order. `site`: with a grid only.

    `effect`: (patched - clean) / (source - clean) of the logit difference: 0 changes nothing, 1 moves it all the way to
    the source's run. None without a source, or where both do not differ.
    """

    index: int
    site: SweepSite | None
    metrics: RunMetrics
    effect: float | None


class Sweep(Iterator[SweepResult]):
    """Iterates over results as they come, in any order; `len()` of it are all, `completed` those that came.

    >>> sweep = model.sweep(chat("How do I thank my neighbor?"), Grid(zero("blocks.*.attn.hook_z"), by="head"),
    ...                     metrics=model.metrics(["I cannot"], ["Here", "Sure"]))
    >>> sweep.to_array("logit_difference").shape
    (8, 8)
    """

    def __init__(self, messages: Iterator[Any], progress: Callable[[int, int], None] | None) -> None:
        self._messages = messages
        self._progress = progress
        self._header: pb.SweepHeader | None = None
        self._sites: list[pb.SweepSite] = []
        self._pending: list[SweepResult] = []
        self._results: dict[int, SweepResult] = {}
        self._summary: pb.SweepSummary | None = None
        self._closed = False

    def _read(self) -> bool:
        """Takes one message in; False at the end."""
        message = next(self._messages, None)
        if message is None:
            if self._header is None or self._summary is None or len(self._results) != self._header.set_count:
                raise closed("the sweep") if self._closed else data_loss("the stream ended before all results came")
            return False
        kind = message.WhichOneof("payload")
        if kind == "header":
            self._header = message.header
            self._sites.extend(message.header.sites)
        elif kind == "sites":
            self._sites.extend(message.sites.sites)
        elif kind == "result":
            self._take(message.result)
        elif kind == "summary":
            self._summary = message.summary
        return True

    def _take(self, message: pb.SweepResult) -> None:
        if message.set_index >= len(self) or message.set_index in self._results:
            raise data_loss(f"result {message.set_index} of {len(self)} came unasked")
        site = _site(self._sites[message.set_index]) if self._sites else None
        result = SweepResult(message.set_index, site, run_metrics(message.metrics), optional(message, "effect"))
        self._results[message.set_index] = result
        self._pending.append(result)
        if self._progress is not None:
            self._progress(self.completed, len(self))

    @property
    def header(self) -> pb.SweepHeader:
        """The first message; waits for it, which is when the clean runs are done."""
        while self._header is None:
            self._read()
        return self._header

    def __next__(self) -> SweepResult:
        while not self._pending:
            if not self._read():
                raise StopIteration
        return self._pending.pop(0)

    def __len__(self) -> int:
        return self.header.set_count

    @property
    def completed(self) -> int:
        return len(self._results)

    @property
    def clean(self) -> RunMetrics:
        return run_metrics(self.header.clean)

    @property
    def source(self) -> RunMetrics | None:
        return run_metrics(self.header.source) if self.header.HasField("source") else None

    @property
    def model(self) -> ModelIdentity:
        return model_identity(self.header.model)

    @property
    def prompt_token_ids(self) -> tuple[int, ...]:
        return tuple(self.header.prompt_token_ids)

    @property
    def prompt_pieces(self) -> tuple[str, ...]:
        """The text of each prompt token: labels for positions."""
        return tuple(self.header.prompt_pieces)

    @property
    def run_seconds(self) -> float:
        self.results()
        assert self._summary is not None
        return seconds(self._summary.timings.run_duration)

    def results(self) -> list[SweepResult]:
        """All of them, in the order of the sets or the grid; reads what is left of the stream first."""
        while self._read():
            pass
        return [self._results[index] for index in range(len(self))]

    def close(self) -> None:
        """Stops the sweep, if it goes on."""
        self._closed = True
        self._messages.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Sweep:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The axes of to_array() in order, with the values along each; those that the grid does not split are left out.

        "name" (where there are several points) are of the form "blocks.*.attn.hook_z", "dims" the groups' beginnings.
        """
        sites = [result.site for result in self.results()]
        if not sites or sites[0] is None:
            raise ValueError("axes: of a sweep over a grid only")
        columns: dict[str, list[Any]] = {
            "name": [_layerless(site.name) for site in sites if site],
            "layer": [site.layer for site in sites if site],
            "position": [site.position for site in sites if site],
            "head": [site.head for site in sites if site],
            "dims": [site.dim_begin for site in sites if site],
        }
        # dict.fromkeys keeps the order, and the grid's is ascending.
        distinct = {axis: list(dict.fromkeys(values)) for axis, values in columns.items()}
        return {
            axis: values
            for axis, values in distinct.items()
            if values != [None] and (axis != "name" or len(values) > 1) and (axis != "layer" or _in_blocks(sites))
        }

    def to_array(self, value: str = "effect") -> np.ndarray[Any, Any]:
        """A value of every run, fp64, as `axes` has them: layer by position, layer by head, and so on.

        `value`: "effect" or a number of RunMetrics, "logit_difference". NaN where it is unset. Raises ValueError for
        sweeps without a grid, and where axes differ from point to point (keys and queries have other heads).
        """
        shape = tuple(len(values) for values in self.axes.values())
        if int(np.prod(shape)) != len(self):
            raise ValueError("value: the axes differ from point to point; use to_dataframe()")
        return np.array([_value(result, value) for result in self.results()]).reshape(shape)

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame, a row for each run: what it touched, its effect and its metrics. Needs pandas."""
        import pandas

        pieces = self.prompt_pieces
        rows = []
        for result in self.results():
            row: dict[str, Any] = {"index": result.index}
            if result.site is not None:
                row |= vars(result.site)
                position = result.site.position
                row["token"] = pieces[position] if position is not None and position < len(pieces) else None
            row["effect"] = result.effect
            row |= {name: getattr(result.metrics, name) for name in METRIC_NAMES}
            rows.append(row)
        return pandas.DataFrame(rows).set_index("index").dropna(axis="columns", how="all")


def _value(result: SweepResult, name: str) -> float:
    if name != "effect" and name not in METRIC_NAMES:
        raise ValueError(f"value: {name!r} is none of effect, {', '.join(METRIC_NAMES)}")
    number = result.effect if name == "effect" else getattr(result.metrics, name)
    return float("nan") if number is None else float(number)


def _layerless(name: str) -> str:
    parts = name.split(".")
    return ".".join([parts[0], "*", *parts[2:]]) if parts[0] == "blocks" else name


def _in_blocks(sites: list[SweepSite | None]) -> bool:
    return any(site is not None and site.name.startswith("blocks.") for site in sites)


def _site(message: pb.SweepSite) -> SweepSite:
    values = (optional(message, name) for name in ("position", "head", "dim_begin", "dim_end"))
    return SweepSite(site_name(message.site), message.site.layer, *values)
