"""Mixed clients for a long time, over TLS and with tokens: whether anything fails, and whether memory grows.

    tests/run_python.sh build/bin/abstract-model-server . build/soak tests/integration/faults/soak.py [--minutes 15]

Every half minute the clients pause, and the server's resident memory is taken: what it keeps when nothing is in
progress. Prints a line each time, then the growth from the second fifth of the time (the first is the warm-up) to the
last. Fails where that is 1 % or more, or any call failed in a way that was not asked for.
"""

import argparse
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc

from abstract_client.protos import hook_pb2

from model_server import TOOL, ModelServer, long_prompt, method, request, scaling, text, zeroing_grid

MAKE_CERTIFICATES = Path(os.environ["ABSTRACT_CHECKOUT"]) / "deploy" / "tls" / "make_certs.sh"
SECONDS_BETWEEN_PAUSES = 30
SECONDS_OF_A_PAUSE = 2  # the server gives memory back a moment after its last request
TOKENS = {"refusal_token_ids": [300], "compliance_token_ids": [301]}


class Client(threading.Thread):
    """Makes one call after another, of a kind drawn by its own generator, until it is told to stop, while it may work."""

    def __init__(self, server, authority, secret, seed, may_work, stop):
        super().__init__(daemon=True)
        self._chance = random.Random(seed)
        self._may_work = may_work
        self._told_to_stop = stop
        self.call_in_progress = threading.Lock()
        self._metadata = [("authorization", f"Bearer {secret}")]
        self._channel = server.channel(authority=authority)
        self.calls, self.failures = 0, []

    def run(self):
        kinds = [self._generate, self._leave, self._capture, self._store, self._patch, self._sweep, self._attribute]
        while not self._told_to_stop.is_set():
            self._may_work.wait()
            kind = self._chance.choice(kinds)
            try:
                with self.call_in_progress:
                    kind()
                self.calls += 1
            except grpc.RpcError as error:
                self.failures.append(f"{kind.__name__}: {error.code().name} {error.details()}")
        self._channel.close()

    def _call(self, name, asked):
        return method(self._channel, name)(asked, timeout=120, metadata=self._metadata)

    def _prompt(self):
        return text(f"How do I bake {self._chance.randrange(50)} loaves of bread?")

    def _generate(self):
        sampling = {"max_new_tokens": self._chance.randrange(1, 60), "temperature": 0.8, "ignore_stop_tokens": True}
        edits = [scaling(hook_pb2.HOOK_POINT_MLP_OUT, self._chance.randrange(8), 0.5)]
        for _ in self._call("Generate", request("Generate", prompt=self._prompt(), sampling=sampling, interventions=edits)):
            pass

    def _leave(self):
        sampling = {"max_new_tokens": 200, "ignore_stop_tokens": True}
        stream = self._call("Generate", request("Generate", prompt=self._prompt(), sampling=sampling))
        for _ in range(self._chance.randrange(5)):
            next(stream)
        stream.cancel()

    def _capture(self):
        asked = request("RunWithCache", prompt=long_prompt(self._chance.randrange(4, 120)), filter={"name_patterns": ["*"]})
        for _ in self._call("RunWithCache", asked):
            pass

    def _store(self):
        names = {"name_patterns": ["blocks.*.hook_resid_post"]}
        asked = request("RunWithCache", prompt=long_prompt(40), filter=names, store=True, store_ttl_seconds=60)
        handle = list(self._call("RunWithCache", asked))[-1].summary.handle
        for _ in self._call("GetActivation", request("GetActivation", handle=handle)):
            pass
        self._call("DeleteActivation", request("DeleteActivation", handle=handle))

    def _patch(self):
        edits = [scaling(hook_pb2.HOOK_POINT_Z, self._chance.randrange(8), 0.0)]
        self._call("RunWithPatch", request("RunWithPatch", prompt=self._prompt(), interventions=edits, metrics=TOKENS))

    def _sweep(self):
        grid = zeroing_grid(hook_pb2.HOOK_POINT_Z, axes=["SWEEP_AXIS_HEAD"])
        for _ in self._call("RunPatchSweep", request("RunPatchSweep", prompt=self._prompt(), grid=grid, metrics=TOKENS)):
            pass

    def _attribute(self):
        pair = {"prompt": long_prompt(20), "source_prompt": long_prompt(20)}
        names = {"name_patterns": ["*hook_z"]}
        for _ in self._call("RunAttribution", request("RunAttribution", pairs=[pair], metrics=TOKENS, filter=names)):
            pass


def start_server(folder):
    """A server with TLS and a token: it, its authority, the token."""
    subprocess.run(["bash", str(MAKE_CERTIFICATES), str(folder / "tls"), "localhost,127.0.0.1"], check=True, capture_output=True)
    tokens = str(folder / "tokens.json")
    create = [TOOL, "--quiet", "token", "create", "soak", "--tokens", tokens]
    secret = subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()
    options = ["--tls-certificate", str(folder / "tls" / "server.pem"), "--tls-key", str(folder / "tls" / "server.key")]
    options += ["--tokens", tokens, "--max-queued-requests", "1000", "--store-directory", str(folder / "store")]
    server = ModelServer(folder / "server", *options)
    return server, (folder / "tls" / "ca.pem").read_bytes(), secret


def resident_at_rest(server, clients, may_work):
    """Bytes, while no call is in progress."""
    may_work.clear()
    with contextlib.ExitStack() as pause:
        for client in clients:
            pause.enter_context(client.call_in_progress)
        time.sleep(SECONDS_OF_A_PAUSE)
        size = server.resident_bytes()
    may_work.set()
    return size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--clients", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server, authority, secret = start_server(Path(folder))
        stop, may_work = threading.Event(), threading.Event()
        may_work.set()
        clients = [Client(server, authority, secret, seed, may_work, stop) for seed in range(options.clients)]
        for client in clients:
            client.start()
        begin, seconds = time.monotonic(), 60 * options.minutes
        samples = []  # (seconds since the beginning, resident bytes)
        while (now := time.monotonic() - begin) < seconds and server.is_running():
            time.sleep(min(SECONDS_BETWEEN_PAUSES, seconds - now))
            samples.append((time.monotonic() - begin, resident_at_rest(server, clients, may_work)))
            calls = sum(client.calls for client in clients)
            print(f"{samples[-1][0] / 60:5.1f} min  {calls:7} calls  {samples[-1][1] / 2**20:7.1f} MiB at rest", flush=True)
        stop.set()
        for client in clients:
            client.join()
        failures = [failure for client in clients for failure in client.failures]
        first = statistics.median(size for at, size in samples if 0.2 * seconds < at < 0.4 * seconds)
        last = statistics.median(size for at, size in samples if at > 0.8 * seconds)
        growth = (last - first) / first
        print(f"{sum(client.calls for client in clients)} calls, {len(failures)} failed; resident {first / 2**20:.1f} MiB "
              f"in the second fifth, {last / 2**20:.1f} MiB in the last: {100 * growth:+.2f} %")
        for failure in sorted(set(failures))[:10]:
            print(f"  {failures.count(failure)} x {failure}")
        sound = server.is_running() and not failures and growth < 0.01
        server.kill()
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
