"""Requests whose time is over before their turn comes, or in the middle of their work; and queues that are full."""

import threading
import time

import grpc

from abstract_client.protos import hook_pb2

from model_server import counted, error_reason, generate, long_prompt, method, request, text, within, zeroing_grid


def long_sweep():
    """Some ten seconds of work."""
    grid = zeroing_grid(hook_pb2.HOOK_POINT_Z, axes=["SWEEP_AXIS_HEAD", "SWEEP_AXIS_POSITION"])
    return request("RunPatchSweep", prompt=long_prompt(400), grid=grid)


def _code(call):
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_deadline_in_the_queue_means_never_begun(start):
    server = start("--max-requests", "1")
    with server.channel() as channel:
        running = method(channel, "RunPatchSweep")(long_sweep())
        next(running)
        before = server.metrics()["mechinterp_prompt_tokens_total"]
        waiting = request("Generate", prompt=text("hello"), sampling={"max_new_tokens": 4})
        assert _code(method(channel, "Generate")(waiting, timeout=0.5)) == grpc.StatusCode.DEADLINE_EXCEEDED
        assert within(5, lambda: counted(server, "handled", "Generate", "DEADLINE_EXCEEDED") == 1)
        running.cancel()
        generate(channel, text("hello"), 4)  # after whatever came before it
        after = server.metrics()["mechinterp_prompt_tokens_total"]
        generate(channel, text("hello"), 4)
        assert after - before == server.metrics()["mechinterp_prompt_tokens_total"] - after  # one prompt's


def test_a_deadline_ends_a_sweep_within_a_pass(start):
    server = start()
    with server.channel() as channel:
        assert _code(method(channel, "RunPatchSweep")(long_sweep(), timeout=1.5)) == grpc.StatusCode.DEADLINE_EXCEEDED
        assert within(5, lambda: server.metrics()["mechinterp_requests_in_progress"] == 0)
        assert counted(server, "handled", "RunPatchSweep", "DEADLINE_EXCEEDED") == 1
        done = server.metrics()["mechinterp_sweep_runs_total"]
        assert done < 8 * 8 * 400
        time.sleep(1)
        assert server.metrics()["mechinterp_sweep_runs_total"] == done
        assert server.metrics()["mechinterp_reserved_bytes"] == 0


def test_a_full_queue_refuses_exactly_what_is_too_much(start):
    server = start("--max-requests", "1", "--max-queued-requests", "8")
    with server.channel() as channel:
        running = method(channel, "RunPatchSweep")(long_sweep())
        next(running)
        outcomes = []

        def ask():
            try:
                outcomes.append(len(generate(channel, text("hello"), 4)))
            except grpc.RpcError as error:
                outcomes.append(error_reason(error))

        callers = [threading.Thread(target=ask) for _ in range(10)]
        for caller in callers:
            caller.start()
        # One client has half of the queue.
        assert within(10, lambda: len(outcomes) == 6), outcomes
        assert outcomes == ["CLIENT_QUEUE_FULL"] * 6
        running.cancel()
        for caller in callers:
            caller.join()
        assert outcomes[6:] == [4] * 4
