"""Sweeps, and the calls that explain, against plain runs and numpy."""

import numpy as np
import pytest

from abstract_client import (
    DECISION,
    Attribution,
    AttributionMethod,
    Circuit,
    Grid,
    ServerError,
    Site,
    add,
    chat,
    replace,
)
from abstract_client import scale, zero

Z = "blocks.*.attn.hook_z"


def test_a_cell_is_the_patched_run_of_its_site(model, harmful, harmless, metrics):
    sweep = model.sweep(
        harmless, Grid(replace("blocks.*.hook_resid_pre", harmful), by="position"), source=harmful, metrics=metrics
    )
    effects = sweep.to_array()
    assert list(sweep.axes) == ["layer", "position"] and effects.shape == (8, len(sweep.prompt_token_ids))
    clean, source = sweep.clean.logit_difference, sweep.source.logit_difference
    for layer, position in ((0, 8), (3, 4), (7, -1)):
        edit = replace(Site(f"blocks.{layer}.hook_resid_pre", positions=position), harmful)
        patched = model.run_with_patch(harmless, edit, metrics=metrics)
        assert patched.clean == sweep.clean
        result = sweep.results()[layer * effects.shape[1] + position % effects.shape[1]]
        assert result.metrics == patched.patched
        assert (result.site.layer, result.site.position) == (layer, position % effects.shape[1])
        expected = (patched.patched.logit_difference - clean) / (source - clean)
        assert effects[layer, position] == pytest.approx(expected)


def test_results_come_with_progress_and_in_any_order(model, harmless, metrics):
    told = []
    sweep = model.sweep(harmless, Grid(zero(Z), by="head"), metrics=metrics, progress=lambda *at: told.append(at))
    assert len(sweep) == 64
    assert sorted(result.index for result in sweep) == list(range(64))
    assert told == [(count, 64) for count in range(1, 65)] and sweep.completed == 64
    assert all(result.effect is None for result in sweep.results())
    assert np.isnan(sweep.to_array()).all()
    assert sweep.to_array("kl_from_clean").min() >= 0


def test_grids_split_as_told(model, harmful, harmless, metrics):
    site = Site("blocks.*.mlp.hook_post", dims=range(100), positions=DECISION)
    sweep = model.sweep(harmless, Grid(zero(site), by="dims", dims_per_group=32, layers=[2, 5]), metrics=metrics)
    assert sweep.axes == {"layer": [2, 5], "dims": [0, 32, 64, 96]}
    assert [result.site.dim_end for result in sweep.results()][:4] == [32, 64, 96, 100]
    points = ["blocks.*.hook_attn_out", "blocks.*.hook_mlp_out"]
    both = model.sweep(harmless, Grid(replace(points[0], harmful), points=points), source=harmful, metrics=metrics)
    assert both.axes == {"name": points, "layer": list(range(8))}
    one = model.sweep(harmless, Grid(zero(Site("blocks.3.attn.hook_z", heads=[2, 1])), by="head"), metrics=metrics)
    assert one.axes == {"layer": [3], "head": [1, 2]}
    embed = model.sweep(harmless, Grid(zero("hook_embed"), by="position"), metrics=metrics)
    assert list(embed.axes) == ["position"]
    uneven = Grid(zero(Z), points=[Z, "blocks.*.attn.hook_k"], by="head")
    with pytest.raises(ValueError, match="axes differ"):
        model.sweep(harmless, uneven, metrics=metrics).to_array("kl_from_clean")


def test_sets_are_runs_of_several_edits_on_a_base(model, harmless, metrics):
    runs = [[zero("blocks.1.attn.hook_z"), zero("blocks.2.attn.hook_z")], scale("blocks.3.hook_mlp_out", 0)]
    base = add("blocks.0.hook_resid_pre", np.ones(128), scale=0.1)
    sweep = model.sweep(harmless, runs, metrics=metrics, base=base)
    for index, edits in enumerate(runs):
        joint = [base, *([edits] if not isinstance(edits, list) else edits)]
        patched = model.run_with_patch(harmless, joint, metrics=metrics).patched
        assert sweep.results()[index].metrics.logit_difference == patched.logit_difference
    assert (
        sweep.clean.logit_difference == model.run_with_patch(harmless, base, metrics=metrics).patched.logit_difference
    )
    with pytest.raises(ValueError, match="grid only"):
        sweep.to_array()


def test_a_sweep_that_is_left_stops(model, harmless, metrics):
    with model.sweep(harmless, Grid(zero("blocks.*.hook_resid_pre"), by="position"), metrics=metrics) as sweep:
        next(sweep)
    with pytest.raises(ServerError, match="CANCELLED: the sweep was closed"):
        sweep.results()


def test_a_dataframe_has_a_row_for_each_run(model, harmful, harmless, metrics):
    pytest.importorskip("pandas")
    sweep = model.sweep(
        harmless, Grid(replace("blocks.*.hook_resid_pre", harmful), by="position"), source=harmful, metrics=metrics
    )
    frame = sweep.to_dataframe()
    assert len(frame) == len(sweep) and list(frame["token"].unique()[:2]) == list(sweep.prompt_pieces[:2])
    pivot = frame.pivot(index="layer", columns="position", values="effect")
    np.testing.assert_array_equal(pivot.to_numpy(), sweep.to_array())
    sets = model.sweep(harmless, [zero("hook_embed")], metrics=metrics).to_dataframe()
    assert list(sets.columns) == ["logit_difference", "refusal_log_odds", "kl_from_clean"]


def test_attribution_is_change_times_gradient(model, harmful, harmless, metrics):
    pair, names = (harmless, harmful), ["blocks.5.attn.hook_z", "blocks.2.hook_resid_pre"]
    [scored] = model.attribution([pair], names, metrics=metrics)
    [gradients] = model.attribution([pair], names, metrics=metrics, return_gradients=True)
    run, source = model.run_with_cache(harmless, names), model.run_with_cache(harmful, names)
    for name in names:
        products = (source[name] - run[name]) * gradients.scores[name]
        expected = products.sum(axis=-1).reshape(scored.scores[name].shape)
        np.testing.assert_allclose(scored.scores[name], expected, atol=1e-5)
    [top] = model.attribution([pair], names, metrics=metrics, top=3)
    largest = max(np.abs(array).max() for array in scored.scores.values())
    assert isinstance(top, Attribution) and len(top.top) == 3 and abs(top.top[0].score) == pytest.approx(largest)
    clean = model.run_with_patch(harmless, zero("hook_embed"), metrics=metrics).clean.logit_difference
    assert top.metric == pytest.approx(clean)


def test_edges_are_attributed_by_name(model, harmful, harmless, metrics):
    [found] = model.attribution(
        [(harmful, harmless)], metrics=metrics, edges=True, top=10, method=AttributionMethod.RELEVANCE
    )
    assert len(found.edges) == 10 and all("->" in edge.name for edge in found.edges)
    sizes = [abs(edge.score) for edge in found.edges]
    assert sizes == sorted(sizes, reverse=True)
    run = model.circuit(
        harmful,
        harmless,
        [Circuit(leading=3), Circuit(members=[0], excluded=[0]), Circuit(complement=True)],
        metrics=metrics,
        edges=[edge.name for edge in found.edges],
    )
    assert run.results[0].edge_count == 3
    assert run.results[1].faithfulness == pytest.approx(0, abs=1e-6)
    assert run.results[2].faithfulness == pytest.approx(1, abs=1e-5)
    assert run.results[1].metrics.logit_difference == pytest.approx(run.source.logit_difference, abs=1e-4)


def test_contributions_add_up_to_what_is_explained(model, harmful, metrics):
    [direct] = model.direct_logit_attribution(harmful, metrics=metrics, neurons=5)
    [position] = direct.positions
    neurons = [entry for entry in position.contributions if ".N" in entry.name]
    senders = sum(entry.contribution for entry in position.contributions if entry not in neurons)
    assert len(neurons) == 5 and senders == pytest.approx(position.contribution_sum, abs=1e-4)
    assert position.contribution_sum == pytest.approx(position.mean_logit_difference, abs=1e-2)
    last = model.run_with_cache(harmful, "logits", positions=-1)["logits"][0]
    means = [last[list(ids)].mean() for ids in (metrics.refusal_tokens, metrics.compliance_tokens)]
    assert position.mean_logit_difference == pytest.approx(means[0] - means[1], abs=1e-4)
    [head] = [entry.contribution for entry in position.contributions if entry.name == "L7.H4"]
    assert position.heads()[7, 4] == np.float32(head)


def test_the_lens_ends_with_the_runs_own_logits(model, harmful, harmless, metrics):
    lenses = model.logit_lens([harmful, harmless], positions=None, metrics=metrics)
    assert [len(lens.readings) for lens in lenses] == [9 * len(lens.prompt_token_ids) for lens in lenses]
    logits = model.run_with_cache(harmless, "logits")["logits"]
    final = [reading for reading in lenses[1].readings if reading.name == "blocks.7.hook_resid_post"]
    assert [reading.target.token_id for reading in final] == list(logits.argmax(axis=-1))
    assert [reading.position for reading in final] == list(range(len(logits)))
    followed = model.logit_lens("A", target_token=7, resid_mid=True)[0].readings
    assert len(followed) == 17 and all(reading.target.token_id == 7 for reading in followed)


def test_means_are_those_of_fetched_activations(model, harmful, harmless):
    name = "blocks.3.hook_resid_pre"
    means = model.mean_activations([harmful, harmless], name, positions=DECISION)
    both = np.stack([model.run_with_cache(prompt, name, positions=DECISION)[name] for prompt in (harmful, harmless)])
    assert means.prompt_count == 2 and means.model == model.run_with_cache(harmful, name).model
    np.testing.assert_allclose(means.mean[name], both.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(means.variance[name], both.var(axis=0, ddof=1), rtol=1e-4, atol=1e-6)


def test_texts_score_what_their_logits_say(model, harmless):
    ids = list(model.tokenize(harmless).ids)
    logits = model.run_with_cache(harmless, "logits")["logits"].astype(np.float64)
    expected = [row[token] - np.log(np.exp(row).sum()) for row, token in zip(logits, ids[1:])]
    [score] = model.score_texts([harmless])
    assert score.first_position == 1 and list(score.token_ids) == ids[1:]
    np.testing.assert_allclose(score.log_probabilities, expected, atol=1e-5)
    assert score.cross_entropy == pytest.approx(-np.mean(expected), abs=1e-5)
    [by_text, by_ids] = model.score_texts([ids[:9], ids[:9]], [model.detokenize(ids[9:12]), ids[9:]])
    assert by_text.first_position == by_ids.first_position == 9
    np.testing.assert_allclose(by_ids.log_probabilities, expected[8:], atol=1e-5)


def test_the_device_is_checked(model):
    assert model.check_device().passed


def test_prompts_of_several_kinds_are_read_as_one_or_many(model):
    assert len(model.logit_lens([5, 6, 7])) == 1
    assert len(model.logit_lens([{"role": "user", "content": "Hi"}])) == 1
    assert len(model.logit_lens([chat("Hi"), "Hi", [5, 6]])) == 3
