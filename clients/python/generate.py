"""Makes abstract_client's protobuf modules from the repository's proto/ folder.

    python3 clients/python/generate.py             into the package beside this file, for use in place
    python3 clients/python/generate.py --output DIR

`pip install` runs it by itself. It takes the `protoc` of $PATH, or else grpcio-tools's, whichever makes modules that
the installed protobuf can read. No gRPC plugin is needed: the methods come from the descriptors.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parent.parent / "proto"
OUTPUT = HERE / "abstract_client" / "protos"
MODULES = ("tensor", "prompt", "hook", "model_service")
COMPILERS = (["protoc"], [sys.executable, "-m", "grpc_tools.protoc"])


class GenerationError(Exception):
    """No compiler made modules that can be imported; the message says what each said."""


def _run(command: list[str]) -> str:
    """What the command said when it failed; empty when it did not."""
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not found"
    return "" if finished.returncode == 0 else (finished.stderr or finished.stdout).strip() or "failed"


def _compile(compiler: list[str], protos: Path, folder: Path) -> str:
    files = [f"mechinterp/v1/{name}.proto" for name in MODULES]
    python = [*compiler, f"-I{protos}", f"--python_out={folder}"]
    # Older compilers make no stubs; only type checkers miss them.
    problem = _run([*python, f"--pyi_out={folder}", *files]) and _run([*python, *files])
    # A descriptor, not a module: google/rpc modules of other packages must not clash with it.
    return problem or _run(
        [
            *compiler,
            f"-I{protos}",
            "--include_imports",
            f"--descriptor_set_out={folder / 'error_details.binpb'}",
            "google/rpc/error_details.proto",
        ]
    )


def _collect(folder: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name in MODULES:
        for suffix in (".py", ".pyi"):
            made = folder / "mechinterp" / "v1" / f"{name}_pb2{suffix}"
            if made.exists():
                text = made.read_text(encoding="utf-8").replace("from mechinterp.v1 import", "from . import")
                (output / made.name).write_text(text, encoding="utf-8")
    (output / "error_details.binpb").write_bytes((folder / "error_details.binpb").read_bytes())
    (output / "__init__.py").touch()


def _import(output: Path) -> str:
    code = f"import sys; sys.path.insert(0, {str(output.parent)!r}); import {output.name}.model_service_pb2"
    return _run([sys.executable, "-B", "-c", code])


def generate(output: Path = OUTPUT, protos: Path = PROTOS) -> None:
    """Writes *_pb2.py, their stubs and error_details.binpb into `output`.

    Raises GenerationError when `protos` is no proto/ folder or no compiler serves.
    """
    if not (protos / "mechinterp" / "v1" / "model_service.proto").is_file():
        raise GenerationError(f"{protos} has no mechinterp/v1/model_service.proto: build within the repository")
    problems = []
    for compiler in COMPILERS:
        with tempfile.TemporaryDirectory() as folder:
            problem = _compile(compiler, protos, Path(folder))
            if not problem:
                _collect(Path(folder), output)
                problem = _import(output)
        if not problem:
            return
        problems.append(f"{' '.join(compiler)}: {problem}")
    advice = "install protobuf-compiler (Debian) or grpcio-tools (pip)"
    raise GenerationError("\n".join(["no protobuf compiler serves; " + advice, *problems]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes abstract_client's protobuf modules.")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder to write to [the package's protos]")
    parser.add_argument("--protos", type=Path, default=PROTOS, help="the repository's proto folder")
    flags = parser.parse_args()
    try:
        generate(flags.output, flags.protos)
    except GenerationError as error:
        sys.exit(f"generate: {error}")
    print(f"generate: wrote {flags.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
