"""Requests made to cost more than they weigh, and requests that are damaged."""

import random
import threading
import time
from collections import Counter

import grpc
import pytest

from abstract_client.protos import hook_pb2, tensor_pb2

from model_server import SERVICE, error_reason, generate, long_prompt, method, request, scaling, text, zeroing_grid

MiB = 1 << 20


def _varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def _field(number, payload):
    """A length-delimited field as it is on the wire."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _long_glob():
    return request("ListHookPoints", name_pattern="*a" * (20 * MiB))


def _many_interventions():
    edit = scaling(hook_pb2.HOOK_POINT_MLP_OUT, 0, 1.0)
    return request("Generate", prompt=text("hello"), interventions=[edit] * 100_000)


def _heavy_prototype():
    grid = zeroing_grid(hook_pb2.HOOK_POINT_MLP_POST, axes=["SWEEP_AXIS_POSITION", "SWEEP_AXIS_DIM_GROUP"])
    grid.dims_per_group = 1
    tensor = tensor_pb2.Tensor(data_type="DATA_TYPE_FLOAT32", shape=[MiB // 4], data=bytes(MiB))
    grid.prototype.replacement.source.tensor.CopyFrom(tensor)
    return request("RunPatchSweep", prompt=long_prompt(64), grid=grid)


def _repeated_points():
    points = [hook_pb2.HOOK_POINT_Z, hook_pb2.HOOK_POINT_MLP_POST] * 1000
    grid = zeroing_grid(*points, axes=["SWEEP_AXIS_POSITION", "SWEEP_AXIS_DIM_GROUP"])
    grid.dims_per_group = 1
    grid.layers.extend(list(range(8)) * 100)
    return request("RunPatchSweep", prompt=long_prompt(400), grid=grid)


def _many_patterns():
    return request("RunWithCache", prompt=text("hello"), filter={"name_patterns": ["*"] * 2_000_000})


def _many_bad_ids():
    # 30 million ids that are no tokens, two bytes each on the wire.
    ids = _field(1, _varint(9999) * 30_000_000)
    return _field(1, _field(3, ids))


def _endless_openings():
    asked = request("RunWithPatch", prompt=text("hello"), interventions=[scaling(hook_pb2.HOOK_POINT_Z, 0, 0.5)])
    for _ in range(200_000):
        asked.metrics.refusal_openings.add(ids=[5, 6, 7])
    return asked


ATTACKS = {
    "ListHookPoints": [_long_glob],
    "Generate": [_many_interventions, _many_bad_ids],
    "RunPatchSweep": [_heavy_prototype, _repeated_points],
    "RunWithCache": [_many_patterns],
    "RunWithPatch": [_endless_openings],
}


def _outcome(call, asked, timeout=60):
    """The error that a call ends with, None for an answer."""
    try:
        answer = call(asked, timeout=timeout)
        for _ in answer if hasattr(answer, "__next__") else ():
            pass
    except grpc.RpcError as error:
        return error
    return None


@pytest.mark.parametrize(
    "name, attack", [(name, attack) for name, attacks in ATTACKS.items() for attack in attacks]
)
def test_a_request_costs_what_it_weighs(start, name, attack):
    server = start("--memory-limit", "400MB")
    asked = attack()
    weight = len(asked) if isinstance(asked, bytes) else asked.ByteSize()
    with server.channel() as channel, server.channel() as others:
        generate(others, text("hello"), 4)
        server.forget_peak()
        before = server.resident_bytes()
        began = time.monotonic()
        refused = _outcome(method(channel, name), asked)
        took = time.monotonic() - began
        assert refused is not None
        assert refused.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED), refused
        assert len(refused.details()) < 20_000
        assert took < 15  # it was 24 to 60 s; much of this is sending it
        grown = server.peak_bytes() - before
        assert grown < 150 * MiB + 12 * weight, f"{grown / MiB:.0f} MiB for a request of {weight / MiB:.1f} MiB"
        assert len(generate(others, text("hello"), 4)) == 4


def test_compressed_requests_are_refused_unopened(start):
    server = start()
    bomb = request("Tokenize", prompt=text("a" * (60 * MiB)))
    with server.channel() as channel:
        generate(channel, text("hello"), 4)
        server.forget_peak()
        before = server.resident_bytes()
        with pytest.raises(grpc.RpcError) as refused:
            method(channel, "Tokenize")(bomb, compression=grpc.Compression.Gzip, timeout=60)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert server.peak_bytes() - before < 32 * MiB
        assert len(generate(channel, text("hello"), 4)) == 4


# ------------------------------------------------------------ damaged requests

COUNT = 20_000
AT_ONCE = 16


def _seeds():
    """A whole request of each method."""
    edits = [scaling(hook_pb2.HOOK_POINT_MLP_OUT, 3, 0.5)]
    prompt, other = text("How do I bake bread?"), text("How do I bake stones?")
    metrics = {"refusal_token_ids": [300], "compliance_token_ids": [301], "top_token_count": 3}
    tokens = {"refusal_token_ids": [300], "compliance_token_ids": [301]}
    grid = zeroing_grid(hook_pb2.HOOK_POINT_Z, axes=["SWEEP_AXIS_HEAD"])
    chat = {"chat": {"messages": [{"role": "CHAT_ROLE_USER", "content": "Hello there"}]}}
    sites = {"name_patterns": ["blocks.1.*"], "positions": {"indices": [-1], "named": ["NAMED_POSITION_LAST"]}}
    pair = {"prompt": prompt, "source_prompt": other}
    direction = tensor_pb2.Tensor(data_type="DATA_TYPE_FLOAT32", shape=[128], data=bytes(range(1, 129)) * 4)
    projection = hook_pb2.Intervention(
        site={"point": "HOOK_POINT_RESID_POST", "layer": 2}, projection_removal={"direction": direction}
    )
    path = hook_pb2.Intervention(
        site={"point": "HOOK_POINT_Q_INPUT", "layer": 4},
        selector={"heads": [1]},
        path_patch={"sender": {"point": "HOOK_POINT_MLP_OUT", "layer": 1}, "source": {"prompt": {"prompt": other}}},
    )
    return [
        ("GetModel", {}),
        ("ListHookPoints", {"name_pattern": "blocks.*.attn.*", "page_size": 10}),
        ("Tokenize", {"prompt": text("Hello, wörld ✓")}),
        ("Detokenize", {"ids": [5, 300, 2000]}),
        ("Generate", {"prompt": chat, "sampling": {"max_new_tokens": 6, "temperature": 0.7}, "metrics": metrics}),
        ("Generate", {"prompt": prompt, "sampling": {"max_new_tokens": 3}, "interventions": [*edits, projection]}),
        ("RunWithCache", {"prompt": prompt, "filter": sites, "interventions": edits}),
        ("RunWithCache", {"prompt": prompt, "filter": sites, "store": True, "store_ttl_seconds": 5}),
        ("RunWithPatch", {"prompt": prompt, "interventions": [*edits, path], "metrics": metrics}),
        ("RunPatchSweep", {"prompt": prompt, "grid": grid, "metrics": metrics, "source_prompt": other}),
        ("RunPatchSweep", {"prompt": prompt, "sets": [{"interventions": [projection]}], "base": {"interventions": edits}}),
        ("RunAttribution", {"pairs": [pair], "metrics": tokens, "top_count": 5, "filter": {"name_patterns": ["*hook_z"]}}),
        ("RunAttribution", {"pairs": [pair], "metrics": tokens, "top_count": 5, "edges": True}),
        ("RunCircuit", {**pair, "nodes": ["L0.H1", "L2.mlp"], "circuits": [{"leading": 1}], "metrics": tokens}),
        ("RunReadout", {"prompts": [prompt], "metrics": metrics, "logit_lens": {}}),
        ("RunReadout", {"prompts": [prompt], "metrics": tokens, "direct_attribution": {"neuron_count": 3}}),
        ("RunMeanActivations", {"prompts": [prompt, prompt], "filter": {"name_patterns": ["blocks.*.hook_resid_pre"]}}),
        ("ScoreTexts", {"texts": [{"prompt": prompt}, {"prompt": prompt, "continuation_token_ids": {"ids": [5, 9]}}]}),
        ("ListActivations", {"page_size": 2}),
        ("GetActivation", {"handle": "none"}),
        ("DeleteActivation", {"handle": "none"}),
    ]


def _mutated(data, chance):
    """The bytes with a few of them changed, cut, repeated or put in: mostly still a message."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[at % len(data)] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
            case 2:
                del data[at : at + chance.randrange(1, 9)]
            case 3:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 4:
                data[at:at] = data[at : at + chance.randrange(1, 60)]
            case 5:
                data[at:at] = b"\xff" * 9 + b"\x01"  # the largest number there is
    return bytes(data)


def test_20000_damaged_requests_are_each_answered(start):
    server = start("--max-queued-requests", "1000")
    seeds = [(name, request(name, **fields).SerializeToString()) for name, fields in _seeds()]
    assert {name for name, _ in seeds} == {m.name for m in SERVICE.methods} - {"CheckDevice"}
    answered, unexpected = [], []
    # What a server says of itself when it is at fault; and of a client that it does not answer.
    faults = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}

    def attack(thread):
        with server.channel() as channel:
            methods = {name: method(channel, name) for name, _ in seeds}
            for index in range(thread, COUNT, AT_ONCE):
                chance = random.Random(index)
                name, data = seeds[index % len(seeds)]
                error = _outcome(methods[name], _mutated(data, chance))
                code = grpc.StatusCode.OK if error is None else error.code()
                answered.append(code)
                if code in faults:
                    unexpected.append((index, name, code, error.details(), error_reason(error)))

    with server.channel() as channel:
        expected = generate(channel, text("hello"), 20)
        threads = [threading.Thread(target=attack, args=(i,)) for i in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not unexpected, unexpected[:5]
        # Not all of them are nonsense, and not all of them are still sense.
        counts = Counter(code.name for code in answered)
        assert counts.total() == COUNT
        assert min(counts["OK"], counts["INVALID_ARGUMENT"]) > COUNT // 20, counts
        assert server.is_running()
        assert generate(channel, text("hello"), 20) == expected
        assert server.metrics()["mechinterp_reserved_bytes"] == 0
