"""A model server in a process of its own: how to call it, and what it costs the machine."""

import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import grpc

from abstract_client.errors import to_server_error
from abstract_client.protos import hook_pb2, model_service_pb2, prompt_pb2

MODEL = Path(os.environ["ABSTRACT_CHECKOUT"]) / "data" / "models" / "tiny-llama-refusal"
SERVER = os.environ["ABSTRACT_SERVER_PROGRAM"]
TOOL = str(Path(SERVER).with_name("abstract"))
SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
UNARY = {"GetModel", "ListHookPoints", "Tokenize", "Detokenize", "RunWithPatch", "ListActivations", "DeleteActivation"}
UNARY |= {"CheckDevice"}


class ModelServer:
    """Serves the embedded model on loopback until terminate() or kill()."""

    def __init__(self, folder, *options):
        folder.mkdir()
        self.log = folder / "log"
        command = [SERVER, "--model", str(MODEL), "--threads", "2", *options]
        for option in ("--listen-address", "--metrics-address"):
            if option not in options:
                command += [option, "127.0.0.1:0"]
        with open(self.log, "w", encoding="utf-8") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self.port = int(self._said(r"serving mechinterp\.v1\.ModelService on port (\d+)\n"))
        self.address = f"127.0.0.1:{self.port}"
        self.metrics_port = int(self._said(r"metrics.* port (\d+)"))

    def _said(self, pattern):
        for _ in range(300):
            found = re.search(pattern, self.log.read_text(encoding="utf-8"))
            if found:
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"the server did not say {pattern}:\n{self.log.read_text(encoding='utf-8')}")

    # ------------------------------------------------------------ the process

    def _memory(self, field):
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(rf"^{field}:\s*(\d+)", status, re.MULTILINE)[1]) * 1024

    def resident_bytes(self):
        return self._memory("VmRSS")

    def peak_bytes(self):
        """The most that was resident since the beginning, or since forget_peak()."""
        return self._memory("VmHWM")

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="utf-8")

    def thread_count(self):
        """But for those of gRPC, which have names, and whose number does not depend on that of the calls."""
        names = [task.read_text().strip() for task in Path(f"/proc/{self.process.pid}/task").glob("*/comm")]
        return names.count(self.process_name())

    def process_name(self):
        return Path(f"/proc/{self.process.pid}/comm").read_text(encoding="utf-8").strip()

    def descriptor_count(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def is_running(self):
        return self.process.poll() is None

    def terminate(self):
        """SIGTERM, without waiting."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self):
        if self.is_running():
            self.process.kill()
        self.process.wait()

    def metrics(self):
        """Every series of the metrics page: 'name{labels}' to its value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    # ------------------------------------------------------------ calls

    def channel(self, port=None, window=None, authority=None):
        """A connection of its own. `window`: bytes of a stream that may come before the client has read any.
        `authority`: certificates in PEM; with TLS.
        """
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        options += [("grpc.max_receive_message_length", 64 << 20)]
        if window is not None:
            options += [("grpc.http2.lookahead_bytes", window), ("grpc.http2.bdp_probe", 0)]
        address = f"127.0.0.1:{port or self.port}"
        if authority:
            return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority), options)
        return grpc.insecure_channel(address, options)


def method(channel, name):
    """A method of the service by its name, as grpc's multi-callables are."""
    described = SERVICE.methods_by_name[name]
    make = channel.unary_unary if name in UNARY else channel.unary_stream
    return make(
        f"/{SERVICE.full_name}/{name}",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=getattr(model_service_pb2, described.output_type.name).FromString,
    )


def request(name, **fields):
    """The request message of a method."""
    return getattr(model_service_pb2, SERVICE.methods_by_name[name].input_type.name)(**fields)


def error_reason(error):
    """The reason that a server states beside a code; empty where it states none."""
    return to_server_error(error).reason


def counted(server, what, name, code=None):
    """grpc_server_WHAT_total of a method, with this code."""
    series = f"grpc_server_{what}_total{{"
    return sum(
        value
        for labels, value in server.metrics().items()
        if labels.startswith(series) and f'="{name}"' in labels and (code is None or f'="{code}"' in labels)
    )


def text(words):
    return prompt_pb2.Prompt(text=words)


def long_prompt(count):
    """A prompt of so many tokens; any ids do."""
    return prompt_pb2.Prompt(token_ids=prompt_pb2.TokenIds(ids=[100 + i % 400 for i in range(count)]))


def generate(channel, prompt, count, edits=(), timeout=120):
    """The ids of a continuation of exactly so many tokens, each with its log-probability's bits."""
    sampling = model_service_pb2.SamplingOptions(max_new_tokens=count, ignore_stop_tokens=True)
    asked = request("Generate", prompt=prompt, sampling=sampling, interventions=edits)
    stream = method(channel, "Generate")(asked, timeout=timeout)
    return [(m.token.token_id, m.token.log_probability) for m in stream if m.WhichOneof("payload") == "token"]


def scaling(point, layer, factor):
    """An edit: a site times a factor."""
    site = hook_pb2.HookSite(point=point, layer=layer)
    return hook_pb2.Intervention(site=site, scaling=hook_pb2.Scaling(factor=factor))


def zeroing_grid(*points, axes=()):
    """A grid that sets each of these points to zero."""
    prototype = hook_pb2.Intervention(zeroing=hook_pb2.Zeroing())
    return model_service_pb2.SweepGrid(prototype=prototype, points=points, axes=axes)


def within(seconds, condition):
    """Whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
