#!/usr/bin/env python3
"""CPU of one handshake, full and resumed, of trigate and nginx in one run.

Both end TLS for the same certificate (ECDSA P-256) on core 0 with one worker; the client is on core 1. What is
measured is the CPU time of the whole server, because handshakes a second depend on who else is on the machine, and
of several rounds the least, because the caches do too.

Usage: TRIGATE=target/release/trigate benches/peers/handshakes.py [--rounds N] [--seconds S] [--idle N]
With --idle it opens N connections instead, sends one request over each, and says what an idle one costs in memory.
Needs nginx and openssl (Debian packages). All traffic stays on loopback.
"""
import argparse
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOST = "bench.example.com"
REQUEST = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: %s\r\n\r\n"
TICKS = os.sysconf("SC_CLK_TCK")

NGINX = """
daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log {dir}/{name}.err;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
 client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3; uwsgi_temp_path {dir}/4;
 scgi_temp_path {dir}/5; {body} }}"""

PROXY = """
 ssl_session_cache shared:s:10m; ssl_session_tickets on; ssl_protocols TLSv1.2 TLSv1.3;
 upstream u {{ server 127.0.0.1:{up}; keepalive 64; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:{clear}; listen 127.0.0.1:{tls} ssl; server_name {host};
  ssl_certificate {dir}/tls.crt; ssl_certificate_key {dir}/tls.key;
  location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}"""

OBJECTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: external, namespace: bench}}
spec:
  gatewayClassName: trigate
  listeners:
  - {{name: http, port: 80, protocol: HTTP}}
  - {{name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: tls}}]}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: bench, namespace: bench}}
spec:
  parentRefs: [{{name: external, namespace: bench}}]
  hostnames: [{host}]
  rules: [{{backendRefs: [{{name: up, port: 80}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: up, namespace: bench}}
spec: {{ports: [{{port: 80, targetPort: {up}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: up-1, namespace: bench, labels: {{kubernetes.io/service-name: up}}}}
addressType: IPv4
ports: [{{port: {up}, protocol: TCP}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
"""

SETTINGS = """
[source.files]
paths = ["manifests"]
[gateways.external]
object = "bench/external"
bind = ["127.0.0.1"]
ports = {{ 80 = {clear}, 443 = {tls} }}
[certificates.bench]
secret = "bench/tls"
chain = "tls.crt"
key = "tls.key"
[runtime]
threads = 1
[drain]
grace = "0s"
timeout = "1s"
[admin]
address = "127.0.0.1:{admin}"
[stats]
address = "127.0.0.1:{stats}"
[ready]
address = "127.0.0.1:{ready}"
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server pinned to a core, with what it has used."""

    def __init__(self, name, command, core, folder):
        log = open(folder / f"{name}.log", "w")
        pinned = ["taskset", "-c", str(core), *command]
        self.name, self.process = name, subprocess.Popen(pinned, stdout=log, stderr=log)
        self.log = folder / f"{name}.log"

    def pids(self):
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu(self):
        """Seconds of CPU, its own and the kernel's for it."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in self.pids()]
        return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS

    def memory(self):
        """KiB that would be free without it."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids()]
        return sum(int(re.search(r"Pss:\s+(\d+)", rollup)[1]) for rollup in rollups)

    def wait_for(self, port):
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"{self.name} does not start:\n{self.log.read_text()}")


def client_of(version):
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.minimum_version = client.maximum_version = version
    return client


def answer(stream):
    """Reads one answer with a content-length."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = stream.recv(65536)
        if not more:
            raise OSError("the connection ended")
        got += more
    head, _, body = got.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(head.decode())
    left = int(re.search(rb"(?i)content-length: *(\d+)", head)[1]) - len(body)
    while left > 0:
        left -= len(stream.recv(left))


def connect(port, client=None, session=None):
    tcp = socket.create_connection(("127.0.0.1", port))
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client.wrap_socket(tcp, server_hostname=HOST, session=session) if client else tcp


def handshakes(server, port, client, resumed, seconds):
    """Microseconds of the server's CPU for each connection: TCP, a handshake, the end."""
    session = None
    if resumed:
        # The ticket comes with the answer.
        stream = connect(port, client)
        stream.sendall((REQUEST % "close").encode())
        answer(stream)
        session = stream.session
        stream.close()
    done, before = 0, server.cpu()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stream = connect(port, client, session)
        if stream.session_reused != resumed:
            sys.exit(f"{server.name}: a session was {'not ' if resumed else ''}resumed")
        # Reset, so that the port is free again at once.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        done += 1
    time.sleep(0.05)
    return (server.cpu() - before) / done * 1e6


def idle(server, clear, tls, count):
    client = client_of(ssl.TLSVersion.TLSv1_3)

    def one(port, client):
        stream = connect(port, client)
        stream.sendall((REQUEST % "keep-alive").encode())
        answer(stream)
        return stream

    # All stay open until the end: what one kind gives back would be what the other one takes.
    held = []
    for what, port, client in (("TLS", tls, client), ("clear text", clear, None)):
        held += [one(port, client) for _ in range(50)]
        time.sleep(1)
        before = server.memory()
        held += [one(port, client) for _ in range(count)]
        time.sleep(2)
        each = (server.memory() - before) / count
        print(f"{server.name:8} {count} idle connections, {what}: {each:.1f} KiB each")


def measure(servers, rounds, seconds):
    versions = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
    for name, version in versions.items():
        for resumed in (False, True):
            found = {server.name: [] for server, _ in servers}
            for _ in range(rounds):
                for server, port in servers:
                    used = handshakes(server, port, client_of(version), resumed, seconds)
                    found[server.name].append(used)
            least = {server: min(used) for server, used in found.items()}
            words = ", ".join(f"{server} {used:.0f} us" for server, used in least.items())
            ratio = least["trigate"] / least["nginx"]
            print(f"{name} {'resumed' if resumed else 'full   '}: {words}, ratio {ratio:.2f}", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=3)
    arguments.add_argument("--idle", type=int, default=0)
    asked = arguments.parse_args()
    trigate = os.environ.get("TRIGATE", "target/release/trigate")
    if not shutil.which("nginx") or not os.path.exists(trigate):
        sys.exit("needs nginx and TRIGATE=path of the release binary")
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory(prefix="trigate-peers-") as folder:
        run(Path(folder), os.path.abspath(trigate), asked)


def run(folder, trigate, asked):
    folder.chmod(0o755)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9",
         "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}",
         "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        check=True, capture_output=True)
    up, servers = free_port(), []
    places = {name: {"clear": free_port(), "tls": free_port()} for name in ("nginx", "trigate")}
    serves = f"server {{ listen 127.0.0.1:{up}; location / {{ return 200 '{'x' * 1024}'; }} }}"
    proxies = PROXY.format(dir=folder, up=up, host=HOST, **places["nginx"])
    for name, body in (("upstream", serves), ("nginx", proxies)):
        (folder / f"{name}.conf").write_text(NGINX.format(dir=folder, name=name, body=body))
    (folder / "manifests").mkdir()
    (folder / "manifests/all.yaml").write_text(OBJECTS.format(host=HOST, up=up))
    own = {name: free_port() for name in ("admin", "stats", "ready")}
    (folder / "proxy.toml").write_text(SETTINGS.format(**places["trigate"], **own))
    commands = {name: ["nginx", "-c", folder / f"{name}.conf", "-e", folder / f"{name}.err"]
                for name in ("upstream", "nginx")}
    commands["trigate"] = [trigate, "run", "--config", folder / "proxy.toml"]
    try:
        for name, command in commands.items():
            servers.append(Server(name, command, 1 if name == "upstream" else 0, folder))
        servers[0].wait_for(up)
        for server in servers[1:]:
            server.wait_for(places[server.name]["tls"])
        if asked.idle:
            for server in servers[1:]:
                idle(server, **places[server.name], count=asked.idle)
        else:
            both = [(server, places[server.name]["tls"]) for server in servers[1:]]
            measure(both, asked.rounds, asked.seconds)
    finally:
        for server in servers:
            server.process.send_signal(signal.SIGTERM)
        for server in servers:
            server.process.wait(10)


main()
