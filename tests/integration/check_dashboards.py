# Checks of deploy/grafana/dashboards, for metrics_test.sh. There is no Grafana here: what it reads is checked by its
# structure, and the panels' queries by asking Prometheus.
#   check_dashboards.py structure SOURCE_FOLDER
#   check_dashboards.py wait PROMETHEUS_URL QUERY        until it has an answer
#   check_dashboards.py data SOURCE_FOLDER PROMETHEUS_URL
#   check_dashboards.py rules PROMETHEUS_URL
import glob
import json
import math
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

# Grafana's own variables, for a Prometheus that scrapes every second.
BUILT_IN = {"$__rate_interval": "4s", "$__range": "10m"}
PATIENCE = 60  # seconds


def dashboards(source):
    found = sorted(glob.glob(os.path.join(source, "deploy/grafana/dashboards/*.json")))
    return [(os.path.basename(path), json.load(open(path, encoding="utf-8"))) for path in found]


def drawn(panels):
    return [panel for panel in panels if panel["type"] != "row"]


def overlaps(a, b):
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )


def faults_of(board, uids):
    variables = {variable["name"] for variable in board["templating"]["list"]}
    if not (board.get("title") and board.get("uid") and board.get("schemaVersion")):
        yield "has no title, uid or schemaVersion"
    for link in board["links"]:
        if link["url"].removeprefix("/d/") not in uids:
            yield f"links to {link['url']}, which is none of ours"
    panels = board["panels"]
    ids = [panel["id"] for panel in panels]
    if len(ids) != len(set(ids)):
        yield "has two panels of one id"
    for i, panel in enumerate(panels):
        where = panel["gridPos"]
        if where["x"] < 0 or where["x"] + where["w"] > 24 or where["h"] < 1:
            yield f"{panel['title']}: lies outside of the 24 columns"
        for other in panels[:i]:
            if overlaps(where, other["gridPos"]):
                yield f"{panel['title']} lies over {other['title']}"
    titles = [panel["title"] for panel in drawn(panels)]
    if len(titles) != len(set(titles)):
        yield "has two panels of one title"
    for panel in drawn(panels):
        if not panel["targets"] or not panel["fieldConfig"]["defaults"].get("unit"):
            yield f"{panel['title']}: has no query or no unit"
        refs = [target["refId"] for target in panel["targets"]]
        if len(refs) != len(set(refs)):
            yield f"{panel['title']}: has two queries of one letter"
        for thing in [panel, *panel["targets"]]:
            if thing["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
                yield f"{panel['title']}: does not ask the data source that is chosen"
        for target in panel["targets"]:
            for name in re.findall(r"\$\{?(\w+)", target["expr"]):
                if name not in variables and "$" + name not in BUILT_IN:
                    yield f"{panel['title']}: there is no variable {name}"


def check_structure(source):
    boards = dashboards(source)
    uids = {board["uid"] for _, board in boards}
    faults = [f"{name}: {fault}" for name, board in boards for fault in faults_of(board, uids)]
    print("\n".join(faults) or f"{len(boards)} dashboards are whole")
    return len(boards) >= 2 and len(uids) == len(boards) and not faults


def ask(url, path, **parameters):
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=20) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        sys.exit(f"FAILED: {parameters}: {error.read().decode()}")


def wait(url, query):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if ask(url, "query", query=query)["result"]:
            return True
        time.sleep(0.2)
    print(f"no answer in {PATIENCE} s: {query}")
    return False


def expression(board, text):
    """As Grafana sends it, with every variable at All."""
    for name, value in BUILT_IN.items():
        text = text.replace(name, value)
    for variable in board["templating"]["list"]:
        text = text.replace("$" + variable["name"], variable.get("allValue") or "")
    assert "$" not in text, text
    return text


def has_data(url, query, begin):
    result = ask(url, "query_range", query=query, start=begin, end=time.time(), step=1)["result"]
    return any(math.isfinite(float(value)) for series in result for _, value in series["values"])


def check_data(source, url):
    begin = float(ask(url, "query", query="min(min_over_time(timestamp(mechinterp_serving)[10m:1s]))")["result"][0]["value"][1])
    asked = 0
    pending = []
    for name, board in dashboards(source):
        for variable in board["templating"]["list"]:
            if variable["type"] != "query":
                continue
            label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            pending.append((f"{name}, variable {variable['name']}", f"group by ({label[2]}) ({expression(board, label[1])})"))
        for panel in drawn(board["panels"]):
            for target in panel["targets"]:
                what = f"{name}, {panel['title']}, {target['legendFormat']}"
                pending.append((what, expression(board, target["expr"])))
                asked += 1
        for annotation in board["annotations"]["list"]:
            ask(url, "query", query=annotation["expr"])  # an alert may be there or not; that it parses is enough
    end = time.monotonic() + PATIENCE
    while pending and time.monotonic() < end:
        pending = [(what, query) for what, query in pending if not has_data(url, query, begin)]
        if pending:
            time.sleep(1)
    for what, query in pending:
        print(f"no data: {what}: {query}")
    print(f"{asked} queries of panels, {len(pending)} without data")
    return not pending


def check_rules(url):
    rules = [rule for group in ask(url, "rules")["groups"] for rule in group["rules"]]
    bad = [rule for rule in rules if rule["health"] != "ok" or rule["state"] == "firing"]
    for rule in bad:
        print(f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}, {rule['state']}: {rule['alerts']}")
    return len(rules) > 10 and not bad


checks = {"structure": check_structure, "wait": wait, "data": check_data, "rules": check_rules}
sys.exit(0 if checks[sys.argv[1]](*sys.argv[2:]) else 1)
