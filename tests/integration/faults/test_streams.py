"""Many clients at once, half of whom go away in the middle."""

import threading

from abstract_client.protos import hook_pb2

from model_server import generate, long_prompt, method, request, scaling, text, within, zeroing_grid

PROMPTS = [text(f"{words} a cake for {n} guests") for words in ("How do I bake", "Tell me about") for n in range(5)]


KINDS = 24  # different requests


def _generate(channel, index):
    kind = index % KINDS
    edits = [scaling(hook_pb2.HOOK_POINT_MLP_OUT, kind % 8, 0.5 + kind % 3)]
    return generate(channel, PROMPTS[kind % 10], 40, edits)


def _sweep(channel):
    """The results' metrics by the index of the set; every head at every layer and position."""
    grid = zeroing_grid(hook_pb2.HOOK_POINT_Z, axes=["SWEEP_AXIS_HEAD", "SWEEP_AXIS_POSITION"])
    asked = request("RunPatchSweep", prompt=long_prompt(24), grid=grid)
    asked.metrics.refusal_token_ids.append(300)
    asked.metrics.compliance_token_ids.append(301)
    results = [message.result for message in method(channel, "RunPatchSweep")(asked) if message.HasField("result")]
    return {result.set_index: result.SerializeToString(deterministic=True) for result in results}


def _leave_after(channel, index, tokens):
    stream = method(channel, "Generate")(
        request("Generate", prompt=PROMPTS[index % 10], sampling={"max_new_tokens": 400, "ignore_stop_tokens": True})
    )
    for _ in range(tokens):
        next(stream)
    stream.cancel()


def test_200_streams_half_of_them_cancelled_beside_a_sweep(start):
    server = start("--max-queued-requests", "1000")
    with server.channel() as channel:
        sweep_alone = _sweep(channel)
        assert len(sweep_alone) == 8 * 8 * 24
        alone = [_generate(channel, kind) for kind in range(KINDS)]
        assert within(30, lambda: server.metrics()["mechinterp_requests_in_progress"] == 0)
        before = server.metrics()["mechinterp_generated_tokens_total"]
        threads, descriptors = server.thread_count(), server.descriptor_count()

        survivors, failures, beside = {}, [], {}

        def keep(index):
            try:
                with server.channel() as own:
                    survivors[index] = _generate(own, index)
            except Exception as error:  # pylint: disable=broad-except
                failures.append(error)

        def leave(index):
            try:
                with server.channel() as own:
                    _leave_after(own, index, 1 + index % 7)
            except Exception as error:  # pylint: disable=broad-except
                failures.append(error)

        def sweep():
            beside.update(_sweep(channel))

        callers = [threading.Thread(target=keep if i % 2 else leave, args=(i,)) for i in range(200)]
        callers.append(threading.Thread(target=sweep))
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

    assert not failures
    assert beside == sweep_alone
    assert len(survivors) == 100
    assert all(tokens == alone[index % KINDS] for index, tokens in survivors.items())
    assert within(30, lambda: server.metrics()["mechinterp_requests_in_progress"] == 0)
    after = server.metrics()
    assert after["mechinterp_reserved_bytes"] == 0
    assert after["mechinterp_queued_rows"] == 0
    # Those who left were not served to their end: that were 40,000 tokens.
    assert after["mechinterp_generated_tokens_total"] - before < 100 * 40 + 100 * 200
    assert within(30, lambda: server.thread_count() <= threads + 2), (threads, server.thread_count())
    assert within(30, lambda: server.descriptor_count() <= descriptors + 2), (descriptors, server.descriptor_count())
