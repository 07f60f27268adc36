"""That the package installs, and says what to do where its protobuf modules are missing."""

import os
import shutil
import subprocess
import sys

import pytest


def run(*command, path="", cwd=None):
    environment = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=120)


def test_pip_installs_it_without_a_network(checkout, tmp_path):
    pip = [sys.executable, "-m", "pip"]
    if run(*pip, "--version").returncode or run(sys.executable, "-c", "import setuptools, wheel").returncode:
        pytest.skip("no pip, setuptools or wheel here")
    # A copy beside proto/, as in a checkout: a build leaves things behind.
    shutil.copytree(checkout / "clients", tmp_path / "clients", ignore=shutil.ignore_patterns("*_pb2*", "*.binpb"))
    (tmp_path / "proto").symlink_to((checkout / "proto").resolve())
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--target", str(tmp_path / "installed")]
    installed = run(*pip, "install", *options, str(tmp_path / "clients" / "python"))
    assert installed.returncode == 0, installed.stderr
    code = "import abstract_client; print(abstract_client.__file__); abstract_client.Model('127.0.0.1:1')"
    imported = run(sys.executable, "-c", code, path=tmp_path / "installed", cwd=tmp_path)
    assert str(tmp_path / "installed") in imported.stdout, imported.stderr
    assert (tmp_path / "installed" / "abstract_client" / "py.typed").exists()


def test_a_checkout_without_modules_says_how_to_make_them(checkout, tmp_path):
    package = checkout / "clients" / "python" / "abstract_client"
    shutil.copytree(package, tmp_path / "abstract_client", ignore=shutil.ignore_patterns("*_pb2*", "*.binpb"))
    imported = run(sys.executable, "-c", "import abstract_client", path=tmp_path, cwd=tmp_path)
    assert imported.returncode != 0 and "generate.py" in imported.stderr


def test_types_are_consistent(checkout, tmp_path):
    pytest.importorskip("mypy")
    options = ["--cache-dir", str(tmp_path), "--config-file", "pyproject.toml"]
    checked = run(sys.executable, "-m", "mypy", *options, cwd=checkout / "clients" / "python")
    assert checked.returncode == 0, checked.stdout


def test_generating_elsewhere_says_what_is_missing(checkout, tmp_path):
    generate = checkout / "clients" / "python" / "generate.py"
    failed = run(sys.executable, str(generate), "--protos", str(tmp_path), "--output", str(tmp_path / "out"))
    assert failed.returncode != 0 and "model_service.proto" in failed.stderr and "Traceback" not in failed.stderr


def test_other_packages_of_google_rpc_do_not_clash():
    # What googleapis-common-protos registers under the same names, in the default pool.
    code = """
from google.protobuf import descriptor_pb2, descriptor_pool
file = descriptor_pb2.FileDescriptorProto(name="google/rpc/error_details.proto", package="google.rpc", syntax="proto3")
file.message_type.add(name="ErrorInfo").field.add(name="other", number=9, label=1, type=9)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
from abstract_client.errors import _detail_classes
print(_detail_classes()["ErrorInfo"](reason="X").reason)
"""
    finished = run(sys.executable, "-c", code, path=os.environ["PYTHONPATH"])
    assert finished.stdout.strip() == "X", finished.stderr
