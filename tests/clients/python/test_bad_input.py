"""What is wrong by itself is told by argument, before anything is sent: nobody listens at this model's address."""

import numpy as np
import pytest

from abstract_client import (
    Circuit,
    Grid,
    Metrics,
    Model,
    RetryPolicy,
    Site,
    Source,
    StoredRun,
    add,
    chat,
    hook_name,
    mean,
    noise,
    path,
)
from abstract_client import project_out, replace, resample, scale, text, tokens, zero

MODEL = Model("127.0.0.1:1", retry=RetryPolicy(max_attempts=1))
Z = "blocks.3.attn.hook_z"
PAIR = [("a", "b")]
STORED = StoredRun("handle", (), (), 0, load=None, delete=None)

CASES = {
    "prompt: content": lambda: MODEL.generate(""),
    "prompt: ids": lambda: MODEL.generate([]),
    "prompt: ids:": lambda: MODEL.generate([1.5]),
    "prompt": lambda: MODEL.generate(None),
    "prompt: messages[0]": lambda: MODEL.generate([{"role": "user"}]),
    "messages[1]: role": lambda: chat([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]),
    "messages[0]: content": lambda: chat(""),
    "content": lambda: text(5),
    "ids": lambda: tokens([-1]),
    "max_new_tokens": lambda: MODEL.generate("a", max_new_tokens=0),
    "temperature": lambda: MODEL.generate("a", temperature=float("nan")),
    "max_new_tokens: '5' is no whole": lambda: MODEL.run_with_patch("a", zero(Z), max_new_tokens="5"),
    "max_new_tokens: 2.5": lambda: MODEL.generate("a", max_new_tokens=2.5),
    "temperature: 'hot'": lambda: MODEL.generate("a", temperature="hot"),
    "temperature: -1": lambda: MODEL.generate("a", temperature=-1),
    "prompt: content: has half": lambda: MODEL.generate("\ud800"),
    "edits: None": lambda: MODEL.generate("a", edits=None),
    "steps": lambda: MODEL.attribution(PAIR, Z, metrics=Metrics(), steps=0),
    "continuations: 1 for 2 texts": lambda: MODEL.score_texts(["a", "b"], ["c"]),
    "continuations[0]": lambda: MODEL.score_texts(["a"], [[1.5]]),
    "prompts[1]": lambda: MODEL.mean_activations(["a", None], Z),
    "target_token": lambda: MODEL.logit_lens("a", target_token=-1),
    "sender: 'nothing'": lambda: path("blocks.7.hook_mlp_in", "nothing", "a"),
    "source.site: no point": lambda: replace(Z, Source(STORED, site="blocks.1.x")),
    "sender_head": lambda: path("blocks.7.hook_mlp_in", "blocks.2.attn.hook_result", "a", sender_head=-1),
    "top_k": lambda: MODEL.generate("a", top_k=-1),
    "top_p": lambda: MODEL.generate("a", top_p=0),
    "seed": lambda: MODEL.generate("a", seed=-1),
    "stop_token_ids": lambda: MODEL.generate("a", stop_token_ids=["a"]),
    "edits[0]": lambda: MODEL.generate("a", edits=["blocks.3.attn.hook_z"]),
    "edits: there are none": lambda: MODEL.run_with_patch("a", []),
    "names": lambda: MODEL.run_with_cache("a", []),
    "names: ": lambda: MODEL.run_with_cache("a", 5),
    "positions: empty": lambda: MODEL.run_with_cache("a", Z, positions=[]),
    "positions: 1.5": lambda: MODEL.run_with_cache("a", Z, positions=1.5),
    "positions: 'last'": lambda: MODEL.run_with_cache("a", Z, positions="last"),
    "positions: a slice": lambda: MODEL.run_with_cache("a", Z, positions=slice(0, 4, 2)),
    "ttl": lambda: MODEL.store("a", Z, ttl=0),
    "run": lambda: MODEL.delete(""),
    "runs: there are none": lambda: MODEL.sweep("a", []),
    "runs[1][0]": lambda: MODEL.sweep("a", [zero(Z), [5]]),
    "pattern": lambda: MODEL.hook_points(""),
    "site: 'hook_z'": lambda: zero("hook_z"),
    "site: no point of a block is called 'hook_z'": lambda: zero("blocks.3.hook_z"),
    "site: 5": lambda: zero(5),
    "heads: -1": lambda: Site(Z, heads=-1),
    "heads: empty": lambda: Site(Z, heads=[]),
    "heads: a slice": lambda: Site(Z, heads=slice(2, None)),
    "heads: True": lambda: Site(Z, heads=True),
    "dims": lambda: Site(Z, dims=[0.5]),
    "source: shape (0,)": lambda: replace(Z, np.zeros(0)),
    "source: holds NaN": lambda: replace(Z, [float("nan")]),
    "source: holds": lambda: replace(Z, [1e300]),
    "source: an array of complex128": lambda: replace(Z, [1j]),
    "source.site": lambda: replace(Z, Source("a", site=Z)),
    "source.positions": lambda: replace(Z, Source("a", positions=[])),
    "sources: there are none": lambda: mean(Z, []),
    "sources[0]": lambda: resample(Z, [np.zeros(3)]),
    "seed: ": lambda: resample(Z, ["a"], seed=1.5),
    "scale": lambda: add(Z, [1.0], scale=float("inf")),
    "factor": lambda: scale(Z, "2"),
    "direction: is zero": lambda: project_out(Z, np.zeros(4)),
    "sigma": lambda: noise(Z, -1),
    "sender: 'blocks.*.hook_mlp_out'": lambda: path("blocks.7.hook_mlp_in", "blocks.*.hook_mlp_out", "a"),
    "by": lambda: MODEL.sweep("a", Grid(zero(Z), by="layer")),
    "dims_per_group: goes": lambda: MODEL.sweep("a", Grid(zero(Z), by="dims")),
    "dims_per_group: 0": lambda: MODEL.sweep("a", Grid(zero(Z), by="dims", dims_per_group=0)),
    "points": lambda: MODEL.sweep("a", Grid(zero(Z), points=[])),
    "points: they name": lambda: MODEL.sweep("a", Grid(zero(Z), points=["blocks.*.hook_mlp_out", Z])),
    "layers": lambda: MODEL.sweep("a", Grid(zero(Z), layers=[1])),
    "edit": lambda: MODEL.sweep("a", Grid(Z)),
    "top_tokens": lambda: MODEL.sweep("a", [zero(Z)], metrics=Metrics(top_tokens=1001)),
    "refusal_tokens": lambda: MODEL.sweep("a", [zero(Z)], metrics=Metrics(["a"])),
    "refusal_openings[0]": lambda: MODEL.sweep("a", [zero(Z)], metrics=Metrics(refusal_openings=[[-1]])),
    "pairs: there are none": lambda: MODEL.attribution([], Z, metrics=Metrics()),
    "pairs[0]": lambda: MODEL.attribution(["ab"], Z, metrics=Metrics()),
    "names: say": lambda: MODEL.attribution(PAIR, metrics=Metrics()),
    "edges": lambda: MODEL.attribution(PAIR, metrics=Metrics(), edges=True),
    "top": lambda: MODEL.attribution(PAIR, Z, metrics=Metrics(), top=-1),
    "nodes": lambda: MODEL.circuit("a", "b", [Circuit()], metrics=Metrics()),
    "circuits": lambda: MODEL.circuit("a", "b", [], metrics=Metrics(), nodes=["L0.mlp"]),
    "leading": lambda: MODEL.circuit("a", "b", [Circuit(leading=-1)], metrics=Metrics(), nodes=["L0.mlp"]),
    "members": lambda: MODEL.circuit("a", "b", [Circuit(members=[-1])], metrics=Metrics(), nodes=["L0.mlp"]),
    "neurons": lambda: MODEL.direct_logit_attribution("a", metrics=Metrics(), neurons=-1),
    "short": lambda: hook_name("x", 3),
    "short: ": lambda: hook_name("z"),
    "layer": lambda: hook_name("z", -1),
    "server": lambda: Model("localhost"),
    "server: ": lambda: Model("host:99999"),
    "timeout": lambda: Model("127.0.0.1:1", timeout=0),
    "max_attempts": lambda: RetryPolicy(max_attempts=0),
    "jitter": lambda: RetryPolicy(jitter=-1),
    "certificate": lambda: Model("127.0.0.1:1", certificate="x"),
    "ca": lambda: Model("127.0.0.1:1", ca="/nowhere"),
    "insecure": lambda: Model("host:1", ca="x", insecure=True),
    "token": lambda: Model("127.0.0.1:1", token="two words"),
    "token: give": lambda: Model("127.0.0.1:1", token="a", token_file="b"),
    "token_file": lambda: Model("127.0.0.1:1", token_file="/nowhere"),
}


@pytest.mark.parametrize("begin", CASES)
def test_the_argument_is_named(begin):
    with pytest.raises(ValueError) as refused:
        CASES[begin]()
    assert str(refused.value).startswith(begin), refused.value


def test_metrics_refuse_openings_that_say_nothing(model):
    with pytest.raises(ValueError, match="^refusal: no first token"):
        model.metrics(["I cannot"], ["I can"])
    with pytest.raises(ValueError, match="^pattern: 'nothing' matches"):
        model.sites("nothing")


def test_iterators_may_be_read_once():
    site = Site(Z, heads=iter([1, 2]), positions=iter([0, -1]))
    assert site.selector() == site.selector() and list(site.selector().heads) == [1, 2]


def test_values_are_sent_as_they_are():
    half = replace(Z, np.ones((2, 3), dtype=np.float16)).message().replacement.source.tensor
    assert (half.data_type, list(half.shape), len(half.data)) == (2, [2, 3], 12)
    turned = np.arange(6, dtype=np.float64).reshape(2, 3).T
    sent = replace(Z, turned).message().replacement.source.tensor
    assert list(sent.shape) == [3, 2]
    np.testing.assert_array_equal(np.frombuffer(sent.data, dtype="<f4").reshape(3, 2), turned)
