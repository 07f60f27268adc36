"""Metadata stands in pyproject.toml; this makes the protobuf modules while the package is built."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))
from generate import generate  # noqa: E402


class BuildWithProtos(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            generate()
        else:
            generate(Path(self.build_lib) / "abstract_client" / "protos")


setup(cmdclass={"build_py": BuildWithProtos})
