"""One connection to a server: its address, its security, and calls with retries."""

from __future__ import annotations

import ipaddress
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2

from abstract_client.checks import finite_number, whole_number
from abstract_client.errors import ServerError, to_server_error
from abstract_client.protos import model_service_pb2 as pb

_DEFAULT_SERVER = "127.0.0.1:50051"
# As clients/lib/connection.cc and services/common/keepalive.h.
_CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # how long an attempt to connect may take
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
]


@dataclass(frozen=True)
class RetryPolicy:
    """How patiently calls are repeated that failed for a passing reason, as the tool `abstract` does.

    `max_attempts`: attempts at a server that is UNAVAILABLE, the first included. `max_queue_wait`: seconds in all
    that a full server (RESOURCE_EXHAUSTED with a delay of the server's) is waited for. Waits begin with
    `initial_backoff` seconds and double up to `max_backoff`; a delay that the server asks for is obeyed instead. Up
    to the share `jitter` is added to each at random. A stream that has delivered anything is never repeated.
    """

    max_attempts: int = 6
    max_queue_wait: float = 600
    initial_backoff: float = 0.25
    max_backoff: float = 8
    jitter: float = 0.2

    def __post_init__(self) -> None:
        whole_number(self.max_attempts, "max_attempts", least=1)
        for name in ("max_queue_wait", "initial_backoff", "max_backoff", "jitter"):
            if finite_number(getattr(self, name), name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative")


class RetryLoop:
    """Decides, for one call, how long to wait before it is tried again."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._attempts = 0
        self._backoff = policy.initial_backoff
        self._queue_wait = 0.0

    def delay_after(self, error: ServerError) -> float | None:
        """Seconds to wait; None when the error is final."""
        if error.code == grpc.StatusCode.UNAVAILABLE:
            self._attempts += 1
            return self._next(error) if self._attempts < self._policy.max_attempts else None
        if error.code == grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_delay is not None:
            delay = self._next(error)
            self._queue_wait += delay
            return delay if self._queue_wait <= self._policy.max_queue_wait else None
        return None

    def _next(self, error: ServerError) -> float:
        delay = error.retry_delay
        if delay is None:
            delay = self._backoff
            self._backoff = min(2 * self._backoff, self._policy.max_backoff)
        return delay * (1 + random.uniform(0, self._policy.jitter))


def is_loopback(address: str) -> bool:
    """Whether "HOST:PORT" stays on this machine; names other than localhost are not looked up."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_address(server: str | None) -> str:
    address = server or os.environ.get("ABSTRACT_SERVER") or _DEFAULT_SERVER
    if address.startswith(("unix:", "unix-abstract:")):
        return address
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"server: {address!r} is not HOST:PORT")
    return address


def _read(argument: str, path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{argument}: cannot read {os.fspath(path)}: {error.strerror}") from error


class _Token:
    """A bearer token, or a file that holds it and is read anew for each call, so that it may be replaced."""

    def __init__(self, token: str | None, token_file: str | os.PathLike[str] | None) -> None:
        if token is not None and token_file is not None:
            raise ValueError("token: give it or token_file, not both")
        if token is None and token_file is None:
            token_file = os.environ.get("ABSTRACT_TOKEN_FILE") or None
        self._token = token
        self._file = token_file
        self.is_set = token is not None or token_file is not None
        self.metadata()

    def metadata(self) -> list[tuple[str, str]]:
        if not self.is_set:
            return []
        argument, token = "token", self._token
        if token is None:
            argument = "token_file"
            token = (_read(argument, self._file) or b"").decode("ascii", "replace").strip()
        if not token or not all("!" <= character <= "~" for character in token):
            raise ValueError(f"{argument}: a token is printable ASCII without spaces, and not empty")
        return [("authorization", f"Bearer {token}")]


class Connection:
    """Calls of mechinterp.v1.ModelService by name. Thread-safe; connects with the first call.

    For the arguments see Model.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        insecure: bool | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.address = _checked_address(server)
        loopback = is_loopback(self.address)
        if not insecure:
            ca = ca or os.environ.get("ABSTRACT_TLS_CA") or None
            if certificate is None and key is None:
                certificate = os.environ.get("ABSTRACT_TLS_CERTIFICATE") or None
                key = os.environ.get("ABSTRACT_TLS_KEY") or None
        credentials = [name for name, value in (("ca", ca), ("certificate", certificate), ("key", key)) if value]
        if insecure and credentials:
            raise ValueError(f"insecure: plain text uses no {credentials[0]}")
        if (certificate is None) != (key is None):
            raise ValueError("certificate: give certificate and key together")
        if timeout is not None and finite_number(timeout, "timeout") <= 0:
            raise ValueError(f"timeout: {timeout} is not above 0")
        self.is_plain = bool(insecure) or (insecure is None and loopback and not credentials)
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        self._token = _Token(token, token_file)

        options = list(_CHANNEL_OPTIONS)
        if loopback:
            options.append(("grpc.enable_http_proxy", 0))
        if self.is_plain:
            self._channel = grpc.insecure_channel(self.address, options)
        else:
            tls = grpc.ssl_channel_credentials(_read("ca", ca), _read("key", key), _read("certificate", certificate))
            self._channel = grpc.secure_channel(self.address, tls, options)
        self._methods = self._make_methods()

    def _make_methods(self) -> dict[str, Any]:
        service = pb.DESCRIPTOR.services_by_name["ModelService"]
        # Descriptors of protobuf 3 do not say which methods stream; the file that they come from does.
        file = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
        streaming = {method.name: method.server_streaming for method in file.service[0].method}
        methods = {}
        for method in service.methods:
            make = self._channel.unary_stream if streaming[method.name] else self._channel.unary_unary
            methods[method.name] = make(
                f"/{service.full_name}/{method.name}",
                request_serializer=getattr(pb, method.input_type.name).SerializeToString,
                response_deserializer=getattr(pb, method.output_type.name).FromString,
            )
        return methods

    def close(self) -> None:
        """Ends the connection; calls in progress are cancelled."""
        self._channel.close()

    def call(self, method: str, request: Any, *, repeatable: bool = True) -> Any:
        """The answer of a call with one. Raises ServerError. What is not repeatable is sent once."""
        loop = RetryLoop(self._retry if repeatable else replace(self._retry, max_attempts=1))
        deadline = self._deadline()
        while True:
            try:
                return self._methods[method](request, timeout=_left(deadline), metadata=self._token.metadata())
            except grpc.RpcError as error:
                self._wait_or_raise(loop, deadline, error)

    def stream(self, method: str, request: Any) -> Iterator[Any]:
        """The messages of a call with many. Closing the generator cancels the call. Raises ServerError."""
        loop, deadline = RetryLoop(self._retry), self._deadline()
        while True:
            call = self._methods[method](request, timeout=_left(deadline), metadata=self._token.metadata())
            began = False
            try:
                for message in call:
                    began = True
                    yield message
                return
            except grpc.RpcError as error:
                if began:
                    raise to_server_error(error) from None
                self._wait_or_raise(loop, deadline, error)
            finally:
                call.cancel()

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _wait_or_raise(self, loop: RetryLoop, deadline: float | None, error: grpc.RpcError) -> None:
        failure = to_server_error(error)
        delay = loop.delay_after(failure)
        if delay is None or (deadline is not None and time.monotonic() + delay >= deadline):
            if failure.code == grpc.StatusCode.UNAVAILABLE:
                failure.message = f"{self.address} does not answer ({failure.message})"
            raise failure from None
        time.sleep(delay)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.001)
