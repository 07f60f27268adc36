"""The study in one command, whose client is killed again and again, and whose server once."""

import json
import random
import subprocess
import time
from pathlib import Path

from model_server import TOOL

RESULTS = ["01_baseline", "02_patching", "03_ablation", "05_circuit", "06_direction"]
SMALL = """client:
  baseline: {limit: 6, max_new_tokens: 24}
  patching: {limit: 6}
  ablation: {limit: 6, held_out: "", top_k: [0, 3], random_draws: 2, max_new_tokens: 16}
  circuit: {limit: 6, test_limit: 4, neurons: 12, edges: 30, resamples: 10, rounds: 1}
  direction: {limit: 6, test_limit: 4, controls: 1, max_new_tokens: 12, most_directions: 2}
"""


def _command(address, folder, *options):
    config = folder / "study.yaml"
    config.write_text(SMALL, encoding="utf-8")
    study = [TOOL, "--server", address, "--config", str(config), "study", "--output-dir", str(folder / "outputs")]
    return study + list(options)


def _findings(folder):
    """All results but for when and how they were made."""
    found = {}
    for name in RESULTS:
        results = json.loads((folder / "outputs" / "results" / f"{name}_results.json").read_text(encoding="utf-8"))
        for volatile in ("create_time", "elapsed", "arguments"):
            results["provenance"].pop(volatile, None)
        results.pop("patching_results_path", None)
        results.pop("directions_path", None)
        found[name] = results
    return found


def _begin(server, folder):
    log = open(folder / "log", "a", encoding="utf-8")  # pylint: disable=consider-using-with
    return subprocess.Popen(_command(server.address, folder), stdout=log, stderr=log)


def test_a_study_that_is_killed_again_and_again_ends_as_the_undisturbed_one(start, tmp_path):
    server = start()
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    calm.mkdir()
    disturbed.mkdir()
    begin = time.monotonic()
    subprocess.run(_command(server.address, calm), check=True, capture_output=True, timeout=300)
    whole = time.monotonic() - begin

    chance = random.Random(7)
    killed = 0
    for _ in range(3):
        study = _begin(server, disturbed)
        time.sleep(whole * chance.uniform(0.15, 0.4))
        killed += study.poll() is None
        study.kill()
        study.wait()
    assert killed >= 2
    # And the server goes, and comes back at its address while the client waits.
    study = _begin(server, disturbed)
    time.sleep(0.3)
    server.kill()
    time.sleep(0.5)
    start("--listen-address", server.address)
    assert study.wait(timeout=300) == 0, (disturbed / "log").read_text(encoding="utf-8")
    assert _findings(disturbed) == _findings(calm)

    # Nothing is left to be done, and nothing is done again.
    made = {name: (disturbed / "outputs" / "results" / f"{name}_results.json").stat().st_mtime_ns for name in RESULTS}
    again = subprocess.run(_command(server.address, disturbed), check=True, capture_output=True, text=True, timeout=60)
    assert again.stderr.count("finished already") == len(RESULTS)
    assert made == {name: (disturbed / "outputs" / "results" / f"{name}_results.json").stat().st_mtime_ns for name in RESULTS}
    report = (disturbed / "outputs" / "report.md").read_text(encoding="utf-8")
    verdicts = [line.split(" | ")[1] for line in report.splitlines() if line.startswith("| ") and line.count(" | ") == 3]
    assert sum(verdict in ("supported", "not supported", "undecided") for verdict in verdicts) == 9, report


def test_a_changed_result_or_option_is_made_again(start, tmp_path):
    server = start()
    command = _command(server.address, tmp_path, "--only", "baseline")
    path = tmp_path / "outputs" / "results" / "01_baseline_results.json"

    def run():
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        return "finished already" in done.stderr

    assert not run()
    assert run()
    path.write_text(path.read_text(encoding="utf-8").replace("violence", "peace"), encoding="utf-8")
    assert not run() and "peace" not in path.read_text(encoding="utf-8")
    config = Path(tmp_path / "study.yaml")
    config.write_text(SMALL.replace("max_new_tokens: 24", "max_new_tokens: 25"), encoding="utf-8")
    assert not run()
    assert run()


def test_an_unknown_step_and_a_step_that_fails_are_told(start, tmp_path):
    server = start()
    wrong = subprocess.run(_command(server.address, tmp_path, "--only", "baseline,pathcing"), capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and 'no step "pathcing"' in wrong.stderr
    # Ablation without the ranking that it goes by.
    failed = subprocess.run(_command(server.address, tmp_path, "--only", "ablation"), capture_output=True, text=True, check=False)
    assert failed.returncode == 1 and "the study stopped in ablation" in failed.stderr
