"""Clients that ask and do not read: more of them than the server has places, by every streaming method."""

import grpc
import pytest

from abstract_client.protos import hook_pb2

from model_server import generate, long_prompt, method, request, text, within, zeroing_grid
from stalling_link import StallingLink

READERS = 64
POINT = hook_pb2


def _attribution(**fields):
    asked = request(
        "RunAttribution", pairs=[{"prompt": long_prompt(60), "source_prompt": long_prompt(61)}], **fields
    )
    asked.metrics.refusal_token_ids.append(300)
    asked.metrics.compliance_token_ids.append(301)
    asked.filter.name_patterns.append("blocks.*.mlp.hook_post")
    return asked


def _circuit():
    asked = request("RunCircuit", prompt=long_prompt(20), source_prompt=long_prompt(20), nodes=["L0.H1", "L2.mlp"])
    asked.metrics.top_token_count = 100
    for _ in range(300):
        asked.circuits.add(leading=1)
    return asked


def _readout():
    asked = request("RunReadout", prompts=[long_prompt(40)] * 2, positions={}, logit_lens={})
    asked.metrics.top_token_count = 50
    return asked


def _sweep():
    asked = request("RunPatchSweep", prompt=long_prompt(24), grid=zeroing_grid(POINT.HOOK_POINT_Z, axes=[1, 2]))
    asked.metrics.top_token_count = 20
    return asked


REQUESTS = {
    "Generate": lambda: request(
        "Generate", prompt=text("hello"), sampling={"max_new_tokens": 400, "ignore_stop_tokens": True}
    ),
    "RunWithCache": lambda: request("RunWithCache", prompt=long_prompt(200), filter={"name_patterns": ["*"]}),
    "RunPatchSweep": _sweep,
    "RunAttribution": _attribution,
    "RunCircuit": _circuit,
    "RunReadout": _readout,
    "GetActivation": None,  # of a run that the test stores
}


def _store(channel):
    asked = request("RunWithCache", prompt=long_prompt(200), filter={"name_patterns": ["*"]}, store=True)
    return list(method(channel, "RunWithCache")(asked))[-1].summary.handle


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("kind", ["keeps the stream's window shut", "keeps TCP's window shut"])
def test_others_are_served_and_everything_comes_back(start, name, kind):
    server = start("--stall-seconds", "3", "--max-requests", "8", "--max-queued-requests", "400")
    with server.channel() as others, StallingLink(server.port) as link:
        asked = REQUESTS[name]() if REQUESTS[name] else request("GetActivation", handle=_store(others))
        generate(others, text("hello"), 4)
        expected = generate(others, text("hello"), 4)
        assert within(30, lambda: server.metrics()["mechinterp_requests_in_progress"] == 0)
        threads = server.thread_count()
        through = {"port": link.port} if kind == "keeps TCP's window shut" else {"window": 5}
        channels = [server.channel(**through) for _ in range(READERS)]
        for channel in channels:
            grpc.channel_ready_future(channel).result(timeout=30)
        link.stall()
        calls = [method(channel, name)(asked, timeout=300) for channel in channels]

        for _ in range(3):
            assert generate(others, text("hello"), 4, timeout=60) == expected
        # They are ended, whatever was asked for, and nothing is left of them.
        assert within(120, lambda: server.metrics()["mechinterp_requests_in_progress"] == 0)
        assert within(60, lambda: server.metrics()["mechinterp_reserved_bytes"] == 0)
        assert within(60, lambda: _in_flight(server, name) == 0)
        assert within(30, lambda: server.thread_count() <= threads + 2), (threads, server.thread_count())
        assert generate(others, text("hello"), 4) == expected
        for call in calls:
            call.cancel()
        for channel in channels:
            channel.close()


def _in_flight(server, name):
    found = [value for series, value in server.metrics().items() if f'grpc_method="{name}"' in series
             and series.startswith("grpc_server_in_flight{")]
    assert len(found) == 1
    return found[0]
