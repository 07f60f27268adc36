"""What the documentation shows is run: doctests, the code in README.md, and the examples."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys

import pytest

import abstract_client

MODULES = [module.name for module in pkgutil.iter_modules(abstract_client.__path__) if module.name != "protos"]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name, model):
    module = importlib.import_module(f"abstract_client.{name}")
    names = {word: getattr(abstract_client, word) for word in abstract_client.__all__}
    assert doctest.testmod(module, extraglobs=names | {"model": model}).failed == 0


def test_every_public_name_has_a_docstring():
    for name in abstract_client.__all__:
        thing = getattr(abstract_client, name)
        assert name.isupper() or (thing.__doc__ and not thing.__doc__.startswith(f"{name}(")), name


def test_the_readmes_code_runs(checkout, address, monkeypatch, tmp_path):
    monkeypatch.setenv("ABSTRACT_SERVER", address)
    monkeypatch.chdir(tmp_path)
    readme = (checkout / "clients" / "python" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    names = {}
    for block in blocks:
        if "pandas" in block:
            pytest.importorskip("pandas")
        exec(compile(block, "README.md", "exec"), names)


def test_the_readme_names_every_public_name(checkout):
    readme = (checkout / "clients" / "python" / "README.md").read_text(encoding="utf-8")
    results = {
        "AttributionEdge",
        "AttributionScore",
        "CircuitResult",
        "DirectContribution",
        "DirectPosition",
        "FieldViolation",
    }
    results |= {
        "GeneratedToken",
        "GenerationResult",
        "LensReading",
        "ModelIdentity",
        "NamedPosition",
        "StoredActivation",
    }
    results |= {"SweepResult", "SweepSite", "TokenProbability", "Edit", "Prompt", "Continuation", "HookPoint", "Tokens"}
    missing = {name for name in abstract_client.__all__ if not re.search(rf"\b{name}\b", readme)} - results
    assert not missing


@pytest.mark.parametrize(
    "name, says",
    [
        ("activation_patching", "largest effect: 1.000 at layer 0, position 8"),
        ("head_attribution", "direct attribution, in logits: L7.H4"),
        ("direction_ablation", "unchanged                      100%     0%"),
    ],
)
def test_an_example_draws_what_it_measured(name, says, checkout, address, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.png"
    program = checkout / "clients" / "python" / "examples" / f"{name}.py"
    command = [sys.executable, str(program), "--server", address, "--output", str(picture)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=os.environ)
    assert finished.returncode == 0, finished.stderr
    assert says in finished.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
