#!/usr/bin/env python3
"""How trigate behaves as the work grows: memory by routes and by idle connections, time until a change is live, the
slowest request while a table of 10,000 routes is swapped or the endpoints of 5,000 clusters roll, CPU per request by
workers, and what a scrape of 1,000 clusters takes, from itself and from requests. Prints one line a figure.

    benches/peers/growth.py                    # all of it
    benches/peers/growth.py routes idle        # or some of: routes idle swap roll workers scrape

Trigate is target/release/trigate (or TRIGATE=path). Needs nginx, nghttp2-client, openssl; 10,000 connections need `ulimit -Hn` of 30,000.
"""

import http.client
import json
import os
import pathlib
import re
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

import config
import run

# As many as one may have open; trigate keeps room for a connection to an upstream for each.
OPEN_FILES = min(30_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
CONNECTIONS = min(10_000, OPEN_FILES * 9 // 20)


def resident_mib(pid):
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"Rss:\s+(\d+)", rollup)[1]) / 1024


def trigate(folder, log, routes):
    """A trigate with so many routes; its process, ports and manifests."""
    folder.mkdir()
    for name in ("cert.pem", "key.pem"):
        (folder / name).write_text((folder.parent / name).read_text())
    os.environ["ROUTES"] = str(routes)
    http, https = config.free_port(), config.free_port()
    command = config.trigate(folder, http, https, int((folder.parent / "upstream-port").read_text()))
    if not command:
        sys.exit("target/release/trigate is missing: cargo build --release, or TRIGATE=path")
    running = run.Running("trigate", command, 0, log)
    config.wait_for(https)
    return running, http, https, folder / "manifests"


def status(port, path, host=run.HOST):
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int(client.recv(64).split(b" ")[1])


def of_routes(folder, log):
    least = None
    for routes in (10, 1_000, 10_000, 100_000):
        running, *_ = trigate(folder / f"routes-{routes}", log, routes)
        # What reading and compiling took besides is given back within seconds.
        time.sleep(5)
        resident = resident_mib(running.process.pid)
        least = least or resident
        each = (resident - least) * 1024 / routes
        print(f"routes: {routes:7}: {resident:6.1f} MiB resident, {each:.2f} KiB a route", flush=True)
        running.end()


def of_idle(folder, log):
    trusting = ssl.create_default_context(cafile=folder / "cert.pem")
    for name in ("plain", "TLS"):
        running, http, https, _ = trigate(folder / f"idle-{name}", log, 10)
        port = https if name == "TLS" else http
        before = resident_mib(running.process.pid)
        clients = []
        for _ in range(CONNECTIONS):
            client = socket.create_connection(("127.0.0.1", port), 10)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if name == "TLS":
                client = trusting.wrap_socket(client, server_hostname=run.HOST)
            client.sendall(f"GET / HTTP/1.1\r\nHost: {run.HOST}\r\n\r\n".encode())
            client.recv(4096)
            clients.append(client)
        time.sleep(1)
        taken = resident_mib(running.process.pid) - before
        each = taken * 1024 / CONNECTIONS
        print(f"idle: {CONNECTIONS} {name} connections: {taken:.1f} MiB, {each:.1f} KiB each", flush=True)
        for client in clients:
            client.close()
        running.end()


def change(manifests, name, path):
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "elsewhere.test"}}],
    }
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "bench"},
        "spec": {"parentRefs": [{"name": "external"}], "hostnames": ["changed.test"], "rules": [rule]},
    }
    replace(manifests, name, json.dumps(route))


def of_swap(folder, log):
    for routes in (1_000, 10_000):
        running, http, _, manifests = trigate(folder / f"swap-{routes}", log, routes)
        times = []
        for n in range(20):
            path = f"/change-{n}"
            begun = time.monotonic()
            change(manifests, "changed", path)
            while status(http, path, "changed.test") == 404:
                if time.monotonic() - begun > 10:
                    sys.exit(f"change {n} is not live after 10 s")
                time.sleep(0.001)
            times.append((time.monotonic() - begun) * 1000)
            time.sleep(0.1)
        times.sort()
        print(f"change: {routes} routes: live after {times[10]:.0f} ms (slowest of 20: {times[-1]:.0f} ms)", flush=True)
        if routes == 10_000:
            slowest_while_swapped(folder, http, manifests)
        running.end()


def slowest_while_swapped(folder, http, manifests):
    slowest_while(folder, http, "swap", lambda n: change(manifests, "changed", f"/swap-{n}"))


def slowest_while(folder, http, name, step):
    """Asks for 10 s, while something changes every 100 ms."""
    over = threading.Event()

    def go_on():
        n = 0
        while not over.wait(0.1):
            n += 1
            step(n)

    changing = threading.Thread(target=go_on)
    changing.start()
    log = folder / f"{name}.log"
    answered, wrong = run.load("h1", http, 0, 10, rate=2_000, log=log)
    over.set()
    changing.join()
    slowest = max(int(line.split("\t")[2]) for line in log.read_text().splitlines()) / 1000
    print(f"{name}: {answered} requests, {wrong} failed, the slowest took {slowest:.1f} ms", flush=True)


def of_scrape(folder, log):
    clusters = 1_000
    running, http_port, _, manifests = trigate(folder / "scrape", log, clusters)
    settings = tomllib.loads((manifests.parent / "proxy.toml").read_text())
    stats = settings["stats"]["address"]
    for n in range(clusters):
        status(http_port, f"/app{n}", f"h{n % 250}.example.com")

    def scrape(coding):
        client = http.client.HTTPConnection(stats, timeout=10)
        begun = time.monotonic()
        client.request("GET", "/stats/prometheus", headers={"Accept-Encoding": coding})
        length = len(client.getresponse().read())
        client.close()
        return (time.monotonic() - begun) * 1000, length

    for coding in ("identity", "gzip", "zstd"):
        times, lengths = zip(*(scrape(coding) for _ in range(20)))
        times = sorted(times)
        print(
            f"scrape: {clusters} clusters in use, {coding}: {lengths[-1] / 2**20:.2f} MiB in {times[10]:.1f} ms"
            f" (slowest of 20: {times[-1]:.1f} ms)",
            flush=True,
        )
    over = threading.Event()

    def scrape_on():
        while not over.wait(0.1):
            scrape("gzip")

    for scraped in (False, True):
        scraping = threading.Thread(target=scrape_on) if scraped else None
        if scraping:
            scraping.start()
        times = folder / f"scrape-{scraped}.log"
        answered, wrong = run.load("h1", http_port, 0, 5, rate=2_000, log=times)
        if scraping:
            over.set()
            scraping.join()
        slowest = max(int(line.split("\t")[2]) for line in times.read_text().splitlines()) / 1000
        print(
            f"scrape: {answered} requests {'while scraped ten times a second' if scraped else 'alone'}, {wrong} failed,"
            f" p99 {run.p99_milliseconds(times):.2f} ms, the slowest took {slowest:.1f} ms",
            flush=True,
        )
    running.end()


CLUSTERS = 5_000


def of_roll(folder, log):
    """The endpoints of 5,000 clusters roll, 50 every 100 ms, those of the cluster that is asked among them."""
    port = int((folder / "upstream-port").read_text())
    running, http, _, manifests = trigate(folder / "roll", log, 10)
    for n in range(CLUSTERS // 50):
        (manifests / f"clusters-{n}.yaml").write_text("\n---\n".join(cluster(m) for m in range(50 * n, 50 * n + 50)))
        roll(manifests, n, 0, port)
    while status(http, f"/cluster-{CLUSTERS - 1}/") != 200:
        time.sleep(0.05)
    before, resident = running.cpu_seconds(), resident_mib(running.process.pid)

    def step(n):
        roll(manifests, n % (CLUSTERS // 50), n, port)
        replace(manifests, "asked", endpoints("asked", "up", n, port))

    slowest_while(folder, http, "roll", step)
    used = running.cpu_seconds() - before
    print(f"roll: {CLUSTERS} clusters, {resident:.1f} MiB resident, {used:.1f} s of CPU for 5,000 changes and the load", flush=True)
    running.end()


def cluster(n):
    """A Service and its route."""
    rewrite = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}
    rule = {
        "matches": [{"path": {"value": f"/cluster-{n}"}}],
        "filters": [rewrite],
        "backendRefs": [{"name": f"up-{n}", "port": 80}],
    }
    spec = {"parentRefs": [{"name": "external"}], "hostnames": ["*.example.com"], "rules": [rule]}
    service = config.named("Service", "v1", f"up-{n}", spec={"ports": [{"name": "http", "port": 80}]})
    route = config.named("HTTPRoute", config.GATEWAY_API, f"cluster-{n}", spec=spec)
    return json.dumps(service) + "\n---\n" + json.dumps(route)


def endpoints(name, service, turn, port):
    """An EndpointSlice with one of the upstream's two addresses."""
    addresses = [f"127.0.0.{1 + turn % 2}"]
    fields = {"addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": [{"addresses": addresses}]}
    one = config.named("EndpointSlice", "discovery.k8s.io/v1", name, **fields)
    one["metadata"]["labels"] = {"kubernetes.io/service-name": service}
    return json.dumps(one)


def replace(manifests, name, text):
    """Writes a file as editors do: a new one in the place of the old."""
    new = manifests / f".{name}.new"
    new.write_text(text)
    new.rename(manifests / f"{name}.yaml")


def roll(manifests, group, turn, port):
    slices = [endpoints(f"up-{m}", f"up-{m}", turn, port) for m in range(50 * group, 50 * group + 50)]
    replace(manifests, f"slices-{group}", "\n---\n".join(slices))


def of_workers(folder, log):
    for workers in (1, 2):
        os.environ["THREADS"] = str(workers)
        running, http, *_ = trigate(folder / f"workers-{workers}", log, 1_000)
        os.sched_setaffinity(running.process.pid, {0, 1})
        run.load("h1", http, 0, 1)
        before = running.cpu_seconds()
        answered, _ = run.load("h1", http, 0, 5)
        used = (running.cpu_seconds() - before) / answered * 1e6
        print(f"workers: {workers}: {used:.1f} us of CPU a request", flush=True)
        running.end()
    del os.environ["THREADS"]


PARTS = {"routes": of_routes, "idle": of_idle, "swap": of_swap, "roll": of_roll, "workers": of_workers, "scrape": of_scrape}


def main():
    names = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        config.certificate(folder, run.HOST)
        log = (folder / "log").open("a")
        port = config.free_port()
        (folder / "upstream-port").write_text(str(port))
        run.Running("upstream", config.upstream(folder, port), 1, log)
        config.wait_for(port)
        try:
            for one in names:
                PARTS[one](folder, log)
        finally:
            for running in run.Running.all:
                running.end()


if __name__ == "__main__":
    main()
