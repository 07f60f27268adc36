"""What goes wrong on the other side, as one exception."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class FieldViolation:
    """One thing wrong with a request: `field` is a path in the protos, "interventions[2].site.layer"."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}"


class ServerError(Exception):
    """A call that failed.

    `code` is gRPC's status code, `message` the server's sentence, `reason` its word for programs ("QUEUE_FULL"; empty
    without one), `violations` every field at fault, `retry_delay` the seconds after which a full server wants to be
    asked again (None: waiting does not help), `metadata` what else the reason comes with.

    >>> try:
    ...     model.run_with_patch(tokens([1, 2, 3]), zero(Site("blocks.99.attn.hook_z", heads=[7])))
    ... except ServerError as error:
    ...     print(error.code.name, [violation.field for violation in error.violations])
    INVALID_ARGUMENT ['interventions[0].site.layer']
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        violations: tuple[FieldViolation, ...] = (),
        retry_delay: float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = violations
        self.retry_delay = retry_delay
        self.metadata = metadata or {}
        super().__init__(code, message)

    def __str__(self) -> str:
        lines = [f"{self.code.name}: {self.message}"]
        lines += [f"  {violation}" for violation in self.violations if str(violation) not in self.message]
        if self.reason and not self.violations:
            lines.append(f"  reason: {self.reason}")
        return "\n".join(lines)


@lru_cache(maxsize=None)
def _detail_classes() -> dict[str, Any]:
    # A pool of our own: google.rpc's modules of other packages describe the same names in the default one.
    data = resources.files("abstract_client.protos").joinpath("error_details.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    if hasattr(message_factory, "GetMessageClass"):
        class_of = message_factory.GetMessageClass
    else:
        class_of = message_factory.MessageFactory(pool).GetPrototype
    names = ("Status", "ErrorInfo", "RetryInfo", "BadRequest")
    return {name: class_of(pool.FindMessageTypeByName(f"google.rpc.{name}")) for name in names}


def to_server_error(error: grpc.RpcError) -> ServerError:
    """Takes apart what gRPC raised; details that cannot be read are left out."""
    code: grpc.StatusCode = error.code()
    message = error.details() or "no message"
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            return _with_details(code, message, value)
    return ServerError(code, message)


def _with_details(code: grpc.StatusCode, message: str, data: bytes) -> ServerError:
    classes = _detail_classes()
    failure = ServerError(code, message)
    try:
        details = classes["Status"].FromString(data).details
        for detail in details:
            name = detail.type_url.rpartition("google.rpc.")[2]
            if name not in classes:
                continue
            content = classes[name].FromString(detail.value)
            if name == "ErrorInfo":
                failure.reason = content.reason
                failure.metadata = dict(content.metadata)
            elif name == "RetryInfo":
                failure.retry_delay = content.retry_delay.seconds + content.retry_delay.nanos * 1e-9
            elif name == "BadRequest":
                failure.violations = tuple(
                    FieldViolation(violation.field, violation.description) for violation in content.field_violations
                )
    except Exception:  # protobuf's implementations raise different ones
        return failure
    return failure


def closed(what: str) -> ServerError:
    """For what is asked of a stream that was closed before its end."""
    return ServerError(grpc.StatusCode.CANCELLED, f"{what} was closed before its end")


def data_loss(message: str) -> ServerError:
    """For a stream that is not what the protos promise."""
    return ServerError(grpc.StatusCode.DATA_LOSS, message)
