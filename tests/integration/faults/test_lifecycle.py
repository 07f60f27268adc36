"""Servers that end under load, that are killed, whose disk fills or lies; and tokens that are revoked in mid-stream."""

import subprocess
import threading
import time

import grpc
import pytest

from model_server import TOOL, error_reason, generate, long_prompt, method, request, text, within
from test_deadlines import long_sweep


def test_sigterm_under_load_loses_nothing_without_a_reason(start):
    server = start("--shutdown-grace-seconds", "8", "--max-queued-requests", "400", "--max-requests", "16")
    outcomes = []

    def ask(index):
        with server.channel() as channel:
            try:
                if index % 20 == 0:
                    outcomes.append(sum(1 for _ in method(channel, "RunPatchSweep")(long_sweep())))
                else:
                    outcomes.append(len(generate(channel, text(f"count to {index}"), 40)))
            except grpc.RpcError as error:
                outcomes.append(f"{error.code().name} {error_reason(error)}")

    callers = [threading.Thread(target=ask, args=(i,)) for i in range(100)]
    for caller in callers:
        caller.start()
    assert within(30, lambda: server.metrics()["mechinterp_generated_tokens_total"] > 200)
    server.terminate()
    begin = time.monotonic()
    assert server.process.wait(timeout=30) == 0
    assert time.monotonic() - begin < 8 + 2
    for caller in callers:
        caller.join()
    assert len(outcomes) == 100
    whole = [outcome for outcome in outcomes if outcome in (40, 2 + 8 * 8 * 400)]
    told = [outcome for outcome in outcomes if outcome == "UNAVAILABLE SHUTTING_DOWN"]
    assert len(whole) + len(told) == 100, outcomes
    assert told and whole


def _store(channel, seed):
    prompt = long_prompt(60)
    prompt.token_ids.ids[0] = 200 + seed
    asked = request("RunWithCache", prompt=prompt, filter={"name_patterns": ["blocks.*.hook_resid_post"]}, store=True)
    return list(method(channel, "RunWithCache")(asked))[-1].summary.handle


def _read(channel, handle):
    """The run's bytes, or why there are none."""
    try:
        messages = list(method(channel, "GetActivation")(request("GetActivation", handle=handle)))
    except grpc.RpcError as error:
        return f"{error.code().name} {error_reason(error)}"
    return b"".join(message.chunk.data for message in messages)


def _listed(channel):
    return {run.handle for run in method(channel, "ListActivations")(request("ListActivations")).runs}


RUN_BYTES = 8 * 60 * 128 * 4


def test_a_killed_server_has_what_was_on_disk_and_not_what_was_damaged(start, tmp_path):
    store = ["--store-directory", str(tmp_path / "store"), "--max-stored-bytes", str(3 * RUN_BYTES)]
    server = start(*store)
    with server.channel() as channel:
        handles = [_store(channel, seed) for seed in range(20)]
        # Reading brings a run into memory, and sends another one to disk.
        written = {handle: _read(channel, handle) for handle in handles}
        assert all(len(data) == RUN_BYTES for data in written.values())
        assert server.metrics()['mechinterp_stored_bytes{place="disk"}'] > 15 * RUN_BYTES
    server.kill()

    files = sorted(path for path in (tmp_path / "store").rglob("*") if path.stat().st_size > RUN_BYTES)
    assert len(files) >= 15
    with open(files[0], "r+b") as damaged:
        damaged.seek(files[0].stat().st_size - 100)
        byte = damaged.read(1)
        damaged.seek(-1, 1)
        damaged.write(bytes([byte[0] ^ 1]))
    with open(files[1], "r+b") as cut_short:
        cut_short.truncate(files[1].stat().st_size // 2)

    again = start(*store)
    with again.channel() as channel:
        outcomes = {handle: _read(channel, handle) for handle in handles}
        same = [handle for handle in handles if outcomes[handle] == written[handle]]
        told = [outcome for handle, outcome in outcomes.items() if handle not in same]
        assert len(same) >= len(files) - 2
        assert set(told) <= {"DATA_LOSS ACTIVATION_DAMAGED", "NOT_FOUND ACTIVATION_NOT_FOUND"}
        assert same and set(same) <= _listed(channel)
        assert len(_read(channel, _store(channel, 99))) == RUN_BYTES


def test_a_full_disk_refuses_the_new_and_keeps_the_old(start, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={8 * RUN_BYTES}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        server = start("--store-directory", str(disk / "store"), "--max-stored-bytes", str(3 * RUN_BYTES))
        with server.channel() as channel:
            handles, refusals = [], []
            for seed in range(30):
                try:
                    handles.append(_store(channel, seed))
                except grpc.RpcError as error:
                    refusals.append(f"{error.code().name} {error_reason(error)}")
            assert 5 <= len(handles) < 30
            assert set(refusals) == {"RESOURCE_EXHAUSTED ACTIVATION_STORE_FULL"}
            assert all(len(_read(channel, handle)) == RUN_BYTES for handle in handles)
            assert _listed(channel) == set(handles)
        server.kill()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_token_revoked_in_mid_stream_ends_it(start, tmp_path):
    tokens = tmp_path / "tokens.json"

    def token_command(*arguments):
        command = [TOOL, "--quiet", "token", *arguments, "--tokens", str(tokens)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    secret = token_command("create", "alice").strip()
    token_command("create", "bob")
    server = start("--tokens", str(tokens))
    metadata = [("authorization", f"Bearer {secret}")]
    with server.channel() as channel:
        stream = method(channel, "RunPatchSweep")(long_sweep(), metadata=metadata)
        next(stream)
        token_command("revoke", "alice")
        with pytest.raises(grpc.RpcError) as ended:
            for _ in stream:
                pass
        assert ended.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as refused:
            method(channel, "GetModel")(request("GetModel"), metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert within(5, lambda: server.metrics()["mechinterp_requests_in_progress"] == 0)
