"""Faults from outside: a model server of this build, as a program, and what tests of it share."""

import os

import pytest

from model_server import ModelServer


@pytest.fixture
def start(tmp_path):
    """Starts servers with options; those that still run when the test ends are killed."""
    servers = []

    def start_server(*options, **settings):
        servers.append(ModelServer(tmp_path / f"server{len(servers)}", *options, **settings))
        return servers[-1]

    yield start_server
    for server in servers:
        server.kill()


def pytest_configure(config):
    # Past any proxy that is set.
    os.environ["no_proxy"] = "127.0.0.1"
