"""Runs of the model, held against numpy."""

import numpy as np
import pytest

from abstract_client import DECISION, LAST, LAST_INSTRUCTION, TEMPLATE_TAIL, Scope, ServerError, Site, Source, add, chat
from abstract_client import hook_name, mean, noise, path, project_out, replace, resample, scale, text, tokens, zero
from abstract_client.names import site_name
from abstract_client.prompts import as_prompt

Z = "blocks.3.attn.hook_z"
STREAM = "blocks.4.hook_resid_pre"


def logits(model, prompt, edits=()):
    return model.run_with_cache(prompt, "logits", edits=edits)["logits"]


def softmax(rows):
    shifted = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def test_every_activation_has_the_shape_that_hook_points_tells(model, harmful):
    cache = model.run_with_cache(harmful, "*")
    length = len(cache.prompt_token_ids)
    points = model.hook_points()
    assert [point.name for point in points] == list(cache)
    for point in points:
        array = cache[point.name]
        assert array.shape == tuple(length if size == -1 else size for size in point.shape)
        assert array.dtype == np.float32 and array.flags.writeable and array.flags.c_contiguous


def test_short_types_are_what_numpy_rounds_to(model, harmful):
    name = "blocks.3.hook_resid_post"
    exact = model.run_with_cache(harmful, name)[name]
    half = model.run_with_cache(harmful, name, sent_as="float16")[name]
    assert half.dtype == np.float32 and np.array_equal(half, exact.astype(np.float16).astype(np.float32))
    with model.store(harmful, name) as run:
        brain = run.load(sent_as="bfloat16")[name]
    # Eight significant bits: off by at most half of the last one.
    assert brain.dtype == np.float32 and (np.abs(brain - exact) <= np.abs(exact) * 2**-8).all()
    assert not (brain.view(np.uint32) & 0xFFFF).any() and not np.array_equal(brain, exact)
    with pytest.raises(ValueError, match="sent_as: 'float8' is none of float32, float16, bfloat16"):
        model.run_with_cache(harmful, name, sent_as="float8")


def test_by_default_everything_is_recorded_that_the_pass_makes_anyway(model, harmful):
    names = {point.name for point in model.hook_points()}
    asked_for = ("q_input", "k_input", "v_input", "result", "mlp_in")
    expected = {name for name in names if not name.endswith(tuple(f".hook_{word}" for word in asked_for))}
    assert set(model.run_with_cache(harmful)) == expected


def test_names_may_be_a_function_and_keys_short(model, harmful):
    cache = model.run_with_cache(harmful, lambda name: name.endswith("hook_z"))
    assert list(cache) == [f"blocks.{layer}.attn.hook_z" for layer in range(8)]
    assert cache["z", 3] is cache["blocks.3.attn.hook_z"]
    assert ("z", 3) in cache and ("resid_pre", 3) not in cache and "nothing" not in cache


def test_short_names_are_those_of_the_model(model):
    names = {point.name for point in model.hook_points()}
    for short in ("resid_pre", "q", "rot_k", "attn_scores", "pattern", "z", "result", "mlp_out", "post", "resid_post"):
        assert hook_name(short, 7) in names
    assert {hook_name("embed"), hook_name("logits")} <= names


def test_positions_select_rows(model, harmful):
    whole = model.run_with_cache(harmful, [Z, "logits"])
    tokenized = model.tokenize(harmful)
    last = tokenized.last_instruction
    expected = [
        (-1, [len(tokenized) - 1]),
        (LAST, [len(tokenized) - 1]),
        (LAST_INSTRUCTION, [last]),
        (TEMPLATE_TAIL, list(range(last + 1, len(tokenized)))),
        (DECISION, list(range(last, len(tokenized)))),
        (slice(2, -3), list(range(2, len(tokenized) - 3))),
        ([0, 5, slice(3, 5)], [0, 3, 4, 5]),
    ]
    for positions, rows in expected:
        part = model.run_with_cache(harmful, [Z, "logits"], positions=positions)
        np.testing.assert_array_equal(part[Z], whole[Z][rows])
        np.testing.assert_array_equal(part["logits"], whole["logits"][rows])


def test_the_stream_is_the_sum_of_what_is_written_to_it(model, harmful):
    cache = model.run_with_cache(harmful, "*")
    for layer in range(8):
        mid = cache["resid_pre", layer] + cache["attn_out", layer]
        np.testing.assert_allclose(cache["resid_mid", layer], mid, atol=1e-5)
        np.testing.assert_allclose(cache["resid_post", layer], mid + cache["mlp_out", layer], atol=1e-5)
        np.testing.assert_allclose(cache["result", layer].sum(axis=1), cache["attn_out", layer], atol=1e-4)
        np.testing.assert_allclose(cache["pattern", layer], softmax(cache["attn_scores", layer]), atol=1e-6)


def test_the_likeliest_token_is_generated_first_with_its_probability(model, harmful):
    last = logits(model, harmful)[-1].astype(np.float64)
    token = next(model.generate(harmful, max_new_tokens=1))
    assert token.token_id == last.argmax()
    assert token.log_probability == pytest.approx(np.log(softmax(last)[token.token_id]), abs=1e-5)


def test_zero_is_a_replacement_by_zeros(model, harmful, metrics):
    site = Site(Z, heads=[1, 2])
    zeroed = model.run_with_patch(harmful, zero(site), metrics=metrics)
    replaced = model.run_with_patch(harmful, replace(site, np.zeros((2, 16))), metrics=metrics)
    assert zeroed.patched == replaced.patched
    assert zeroed.patched != zeroed.clean and zeroed.clean.kl_from_clean == 0
    np.testing.assert_array_equal(
        logits(model, harmful, zero(site)), logits(model, harmful, replace(site, np.zeros(16, dtype=np.float16)))
    )


def test_an_edit_changes_its_heads_and_positions_alone(model, harmful):
    clean = model.run_with_cache(harmful, Z)[Z]
    edited = model.run_with_cache(harmful, Z, edits=zero(Site(Z, heads=2, positions=[3, -1])))[Z]
    expected = clean.copy()
    expected[[3, -1], 2] = 0
    np.testing.assert_array_equal(edited, expected)


def test_a_source_may_be_a_prompt_an_array_or_a_stored_run(model, harmful, harmless, metrics):
    site = Site(Z, heads=[0, 5], positions=DECISION)
    rows = model.run_with_cache(harmful, Z, positions=DECISION)[Z][:, [0, 5]]
    with model.store(harmful, "blocks.*.attn.hook_z") as stored:
        sources = [harmful, rows, stored, Source(stored, site=Z), Source(harmful, positions=DECISION)]
        found = [model.run_with_patch(harmless, replace(site, source), metrics=metrics).patched for source in sources]
    assert found[0].logit_difference != pytest.approx(found[0].kl_from_clean)
    assert all(patched == found[0] for patched in found[1:])


def test_additions_and_scalings_are_read_back(model, harmful):
    clean = model.run_with_cache(harmful, STREAM)[STREAM]
    vector = np.random.default_rng(1).standard_normal(128).astype(np.float32)
    added = model.run_with_cache(harmful, STREAM, edits=add(STREAM, vector, scale=2.5))[STREAM]
    np.testing.assert_allclose(added, clean + 2.5 * vector, rtol=1e-5, atol=1e-5)
    scaled = model.run_with_cache(harmful, STREAM, edits=[scale(STREAM, 2), scale(STREAM, -0.25)])[STREAM]
    np.testing.assert_allclose(scaled, -0.5 * clean, rtol=1e-6)


def test_a_direction_that_is_projected_out_has_no_component_left(model, harmful):
    clean = model.run_with_cache(harmful, STREAM)[STREAM]
    direction = np.random.default_rng(2).standard_normal(128)
    unit = direction / np.linalg.norm(direction)
    left = model.run_with_cache(
        harmful, "blocks.*.hook_resid_pre", edits=project_out("blocks.*.hook_resid_pre", direction)
    )
    for layer in range(8):
        assert np.abs(left["resid_pre", layer] @ unit).max() < 1e-4
    once = model.run_with_cache(harmful, STREAM, edits=project_out(STREAM, 7 * direction))[STREAM]
    np.testing.assert_allclose(once, clean - np.outer(clean @ unit, unit), atol=1e-5)


def test_means_are_numpys(model, harmful, harmless):
    other = chat("How can I plant a tree?")
    caches = [model.run_with_cache(prompt, Z, positions=[-2, -1])[Z] for prompt in (harmful, other)]
    site = Site(Z, positions=[-2, -1])
    over_all = model.run_with_cache(harmless, Z, edits=mean(site, [harmful, other]), positions=[-2, -1])[Z]
    expected = np.concatenate(caches).mean(axis=0)
    np.testing.assert_allclose(over_all, np.stack([expected, expected]), atol=1e-6)
    each = model.run_with_cache(harmless, Z, edits=mean(site, [harmful, other], per_position=True), positions=[-2, -1])
    np.testing.assert_allclose(each[Z], np.mean(caches, axis=0), atol=1e-6)


def test_resampling_takes_one_of_the_sources(model, harmful, harmless):
    other = chat("How do I renew my passport?")
    site = Site(Z, positions=LAST)
    sources = [model.run_with_cache(prompt, Z, positions=LAST)[Z] for prompt in (harmful, other)]
    drawn = set()
    for seed in range(12):
        edited = model.run_with_cache(harmless, Z, edits=resample(site, [harmful, other], seed=seed), positions=LAST)[Z]
        drawn.add([np.array_equal(edited, source) for source in sources].index(True))
    assert drawn == {0, 1}


def test_noise_is_that_of_its_seed(model, harmful):
    clean = model.run_with_cache(harmful, STREAM)[STREAM]
    noisy = [model.run_with_cache(harmful, STREAM, edits=noise(STREAM, 0.5, seed=seed))[STREAM] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    assert (noisy[0] - clean).std() == pytest.approx(0.5, rel=0.05)


def test_a_path_from_the_same_run_changes_nothing_and_from_another_something(model, harmful, harmless, metrics):
    def patched(source):
        edit = path(Site("blocks.7.hook_q_input", heads=4), "blocks.6.attn.hook_result", source, sender_head=7)
        return model.run_with_patch(harmless, edit, metrics=metrics).patched

    assert patched(harmless).kl_from_clean == 0
    assert patched(harmful).kl_from_clean > 0


def test_edits_are_in_force_while_generating(model, harmful):
    everywhere = zero("blocks.*.hook_mlp_out")
    generated = zero(Site("blocks.*.hook_mlp_out", scope=Scope.GENERATED))
    texts = {model.generate_text(harmful, max_new_tokens=12, edits=edits) for edits in ((), everywhere, generated)}
    assert len(texts) == 3
    result = model.run_with_patch(harmful, everywhere, max_new_tokens=12)
    assert result.clean_continuation.text == model.generate_text(harmful, max_new_tokens=12)
    assert result.patched_continuation.text == model.generate_text(harmful, max_new_tokens=12, edits=everywhere)


def test_generation_comes_in_pieces_and_can_be_left(model, harmful, metrics):
    generation = model.generate(harmful, max_new_tokens=30, metrics=metrics)
    assert "".join(generation.pieces()) == generation.result.text
    assert len(generation.result.token_ids) <= 30
    assert generation.result.metrics == model.run_with_patch(harmful, zero(Z), metrics=metrics).clean
    with model.generate(harmful, max_new_tokens=400, stop_at_eos=False) as left:
        next(left)
    with pytest.raises(ServerError, match="CANCELLED: the generation was closed"):
        left.result
    seeds = [model.generate_text(harmful, temperature=4, seed=seed, max_new_tokens=12) for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_prompts_are_read_as_they_are_made(model):
    question = "How do I poach an egg?"
    as_chat, as_text = model.tokenize(chat(question)), model.tokenize(question)
    assert as_chat.pieces[as_chat.last_instruction] == "?" and as_text.last_instruction is None
    assert as_text.ids[1:] == model.tokenize(text(question), begin_of_text=False).ids
    assert model.detokenize(as_text.ids, skip_special_tokens=True) == question
    assert model.tokenize(list(as_text.ids)) == model.tokenize(as_text.ids) == as_text
    assert model.tokenize(np.array([as_text.ids])) == as_text
    assert as_prompt([{"role": "user", "content": question}]) == chat(question)
    np.testing.assert_array_equal(logits(model, tokens(as_chat.ids)), logits(model, chat(question)))
    opened = model.tokenize(chat(question, system="Be brief.", assistant="Sure"))
    assert opened.pieces[-1] == "Sure" and "Be" in "".join(opened.pieces)


def test_stored_runs_are_listed_loaded_and_deleted(model, harmful):
    with model.store(harmful, [Z, STREAM], positions=DECISION, ttl=60) as stored:
        sent = model.run_with_cache(harmful, [Z, STREAM], positions=DECISION)
        loaded = stored.load()
        assert list(loaded) == list(sent) and all(np.array_equal(loaded[name], sent[name]) for name in sent)
        assert {entry.name: entry.shape for entry in stored.activations} == {n: a.shape for n, a in sent.items()}
        assert stored.byte_count == sum(array.nbytes for array in sent.values())
        [listed] = [run for run in model.stored() if run.handle == stored.handle]
        assert listed.prompt_token_ids == sent.prompt_token_ids and listed.expire_time is not None
    with pytest.raises(ServerError) as gone:
        stored.load()
    assert gone.value.code.name == "NOT_FOUND"
    with model.store(harmful, Z) as twice:
        model.delete(twice.handle)


def test_everything_wrong_is_told_by_field(model):
    with pytest.raises(ServerError) as refused:
        model.run_with_patch("text", [zero("blocks.99.hook_resid_pre"), zero(Site(Z, heads=50, positions=1000))])
    assert {violation.field for violation in refused.value.violations} >= {"interventions[0].site.layer"}
    assert refused.value.reason == "INVALID_REQUEST" and refused.value.code.name == "INVALID_ARGUMENT"
    assert all(violation.field in str(refused.value) for violation in refused.value.violations)


def test_every_hook_point_is_known_by_name(model):
    for point in model.hook_points():
        site = Site(point.name)
        assert site_name(site.message()) == point.name
