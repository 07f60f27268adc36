"""Retries, errors, tokens and TLS, against servers made here that answer as told."""

import shutil
import subprocess
import threading
import time
from concurrent import futures

import grpc
import pytest

from abstract_client import Model, RetryPolicy, ServerError
from abstract_client.connection import is_loopback
from abstract_client.errors import _detail_classes
from abstract_client.protos import model_service_pb2 as pb

QUICK = RetryPolicy(initial_backoff=0.01, max_backoff=0.02, jitter=0)


class Scripted(grpc.GenericRpcHandler):
    """Calls `script` with (number of the call, its context) for a stream's messages or one answer's."""

    def __init__(self, script):
        self.script = script
        self.metadata = []

    def service(self, details):
        streams = details.method.endswith(("/Generate", "/RunWithCache", "/RunPatchSweep"))
        make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return make(self._stream if streams else self._answer, None, lambda message: message.SerializeToString())

    def _stream(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        yield from self.script(len(self.metadata), context)

    def _answer(self, request, context):
        return list(self._stream(request, context))[0]


def start(handler, credentials=None):
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[handler])
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("localhost:0", credentials)
    server.start()
    return server, port


@pytest.fixture
def serve():
    servers = []

    def begin(script):
        handler = Scripted(script)
        server, port = start(handler)
        servers.append(server)
        return handler, f"127.0.0.1:{port}"

    yield begin
    for server in servers:
        server.stop(None)


def fail_with(context, code, *details, message="as told"):
    classes = _detail_classes()
    status = classes["Status"](code=code.value[0], message=message)
    status.details.add(type_url="type.googleapis.com/google.rpc.Unknown", value=b"\xff")
    for name, fields in details:
        content = classes[name](**fields).SerializeToString()
        status.details.add(type_url=f"type.googleapis.com/google.rpc.{name}", value=content)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


def token(number):
    return pb.GenerateResponse(token=pb.GeneratedToken(token_id=number))


def generation(context=None):
    yield pb.GenerateResponse(header=pb.RunHeader())
    yield pb.GenerateResponse(summary=pb.GenerateSummary(continuation=pb.Continuation(text="done")))


def test_an_unavailable_server_is_asked_again_before_anything_came(serve):
    def script(call, context):
        if call < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        yield from generation()

    handler, address = serve(script)
    assert Model(address, retry=QUICK).generate_text("a") == "done"
    assert len(handler.metadata) == 3


def test_a_stream_that_broke_off_is_not_repeated(serve):
    def script(call, context):
        yield pb.GenerateResponse(header=pb.RunHeader())
        yield token(5)
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    handler, address = serve(script)
    stream = Model(address, retry=QUICK).generate("a")
    assert next(stream).token_id == 5
    with pytest.raises(ServerError, match="UNAVAILABLE: gone"):
        next(stream)
    assert len(handler.metadata) == 1


def test_a_full_server_is_waited_for_as_it_asks(serve):
    def script(call, context):
        if call < 3:
            delay = {"retry_delay": {"nanos": 150_000_000}}
            fail_with(context, grpc.StatusCode.RESOURCE_EXHAUSTED, ("RetryInfo", delay))
        yield from generation()

    handler, address = serve(script)
    begin = time.monotonic()
    assert Model(address, retry=QUICK).generate_text("a") == "done"
    assert 0.3 <= time.monotonic() - begin < 5 and len(handler.metadata) == 3
    with pytest.raises(ServerError) as impatient:
        handler.metadata.clear()
        Model(address, retry=RetryPolicy(max_queue_wait=0.1)).generate_text("a")
    assert impatient.value.retry_delay == pytest.approx(0.15) and len(handler.metadata) == 1


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INTERNAL", "DEADLINE_EXCEEDED", "UNAUTHENTICATED"])
def test_other_failures_are_final(serve, code):
    handler, address = serve(lambda call, context: context.abort(grpc.StatusCode[code], "no"))
    with pytest.raises(ServerError) as failed:
        Model(address, retry=QUICK).info()
    assert failed.value.code.name == code and len(handler.metadata) == 1


def test_a_delete_is_sent_once(serve):
    handler, address = serve(lambda call, context: context.abort(grpc.StatusCode.UNAVAILABLE, "gone"))
    with pytest.raises(ServerError):
        Model(address, retry=QUICK).delete("handle")
    assert len(handler.metadata) == 1


def test_details_are_taken_apart(serve):
    violations = [{"field": "prompt", "description": "is empty"}, {"field": "x[1]", "description": "is odd"}]

    def script(call, context):
        info = {"reason": "INVALID_REQUEST", "domain": "mechinterp", "metadata": {"limit": "3"}}
        bad = {"field_violations": violations}
        delay = {"retry_delay": {"seconds": 2}}
        details = (("ErrorInfo", info), ("BadRequest", bad), ("RetryInfo", delay))
        fail_with(context, grpc.StatusCode.INVALID_ARGUMENT, *details)

    _, address = serve(script)
    with pytest.raises(ServerError) as failed:
        Model(address).info()
    error = failed.value
    assert (error.reason, error.metadata, error.retry_delay) == ("INVALID_REQUEST", {"limit": "3"}, 2.0)
    assert [(violation.field, violation.description) for violation in error.violations] == [
        ("prompt", "is empty"),
        ("x[1]", "is odd"),
    ]
    assert str(error) == "INVALID_ARGUMENT: as told\n  prompt: is empty\n  x[1]: is odd"


def test_details_that_cannot_be_read_are_left_out(serve):
    def script(call, context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "none")

    _, address = serve(script)
    with pytest.raises(ServerError, match="^NOT_FOUND: none$"):
        Model(address).info()


def test_nobody_there_is_told_with_the_address():
    with pytest.raises(ServerError, match="UNAVAILABLE: 127.0.0.1:1 does not answer"):
        Model("127.0.0.1:1", retry=RetryPolicy(max_attempts=1)).info()


def test_a_timeout_is_of_the_call_with_its_retries(serve):
    _, address = serve(lambda call, context: context.abort(grpc.StatusCode.UNAVAILABLE, "no"))
    begin = time.monotonic()
    with pytest.raises(ServerError):
        Model(address, timeout=0.5, retry=RetryPolicy(max_attempts=100)).info()
    assert time.monotonic() - begin < 3


def test_streams_that_lack_something_are_refused(serve):
    info = pb.ActivationInfo(name="logits", data_type=1, shape=[1, 2], byte_count=8)
    header = pb.RunWithCacheResponse(header=pb.RunHeader(activations=[info]))
    summary = pb.RunWithCacheResponse(summary=pb.RunSummary())

    def chunk(offset, size, index=0):
        return pb.RunWithCacheResponse(
            chunk=pb.ActivationChunk(activation_index=index, offset_bytes=offset, data=bytes(size))
        )

    whole = [header, chunk(0, 4), chunk(4, 4), summary]
    wrong = {
        "4 of 8 bytes": [header, chunk(0, 4), summary],
        "bytes 4 to 8 came": [header, chunk(4, 4), summary],
        "bytes 0 to 12": [header, chunk(0, 12), summary],
        "activation 3": [header, chunk(0, 4, index=3), summary],
        "without a summary": whole[:-1],
        "without a header": [summary],
    }
    streams = [whole, *wrong.values()]
    _, address = serve(lambda call, context: iter(streams[call - 1]))
    model = Model(address)
    assert model.run_with_cache("a", "logits")["logits"].shape == (1, 2)
    for words in wrong:
        with pytest.raises(ServerError, match=f"DATA_LOSS.*{words}"):
            model.run_with_cache("a", "logits")


def test_a_stream_that_is_left_is_cancelled(serve):
    ended = threading.Event()

    def script(call, context):
        context.add_callback(ended.set)
        yield pb.GenerateResponse(header=pb.RunHeader())
        yield token(1)
        ended.wait(20)

    _, address = serve(script)
    with Model(address).generate("a") as stream:
        next(stream)
    assert ended.wait(10)


def test_a_token_goes_with_every_call_and_a_file_may_be_replaced(serve, tmp_path, monkeypatch):
    handler, address = serve(lambda call, context: iter([pb.GetModelResponse()]))
    Model(address, token="secret").info()
    file = tmp_path / "token"
    file.write_text("first\n")
    monkeypatch.setenv("ABSTRACT_TOKEN_FILE", str(file))
    monkeypatch.setenv("ABSTRACT_SERVER", address)
    model = Model()
    model.info()
    file.write_text("second\n")
    model.info()
    monkeypatch.delenv("ABSTRACT_TOKEN_FILE")
    Model().info()
    sent = [metadata.get("authorization") for metadata in handler.metadata]
    assert sent == ["Bearer secret", "Bearer first", "Bearer second", None]
    assert "second" not in repr(model) + repr(vars(model))


def test_only_loopback_is_plain_by_default(tmp_path):
    def is_plain(*arguments, **options):
        return Model(*arguments, **options)._connection.is_plain

    assert is_plain("127.0.0.1:50051") and is_plain("localhost:1") and is_plain("[::1]:1") and is_plain("unix:/socket")
    assert not is_plain("gpu.example:50051") and not is_plain("127.example:1") and not is_plain("localhost.example:1")
    assert not is_plain("gpu.example:50051", token="secret")
    assert is_plain("gpu.example:50051", token="secret", insecure=True)
    assert not is_plain("127.0.0.1:1", insecure=False)
    (tmp_path / "ca").write_text("")
    assert is_loopback("127.8.9.1:1") and not is_loopback("10.0.0.1:1")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_tls_checks_the_server_and_shows_the_client(tmp_path):
    def make(name):
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-keyout",
                tmp_path / f"{name}.key",
                "-out",
                tmp_path / name,
            ],
            check=True,
            capture_output=True,
        )
        return (tmp_path / f"{name}.key").read_bytes(), (tmp_path / name).read_bytes()

    pair, (_, client) = make("server"), make("client")
    handler = Scripted(lambda call, context: iter([pb.GetModelResponse(layer_count=8)]))
    credentials = grpc.ssl_server_credentials([pair], root_certificates=client, require_client_auth=True)
    server, port = start(handler, credentials)
    address, once = f"localhost:{port}", RetryPolicy(max_attempts=1)
    files = {"certificate": tmp_path / "client", "key": tmp_path / "client.key"}
    try:
        assert Model(address, ca=tmp_path / "server", token="secret", **files).info().n_layers == 8
        assert handler.metadata[0]["authorization"] == "Bearer secret"
        for options in ({"ca": tmp_path / "server"}, {"ca": tmp_path / "client", **files}, {}, {"insecure": False}):
            with pytest.raises(ServerError):
                Model(address, retry=once, timeout=10, **options).info()
        assert len(handler.metadata) == 1
    finally:
        server.stop(None)
