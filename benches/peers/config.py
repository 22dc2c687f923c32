"""The peers' configurations: one worker each, one upstream, TLS with one ECDSA certificate, keep-alive everywhere."""

import base64
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL, LARGE = 1024, 100 * 1024


def certificate(folder, host):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7"]
        + ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
        + ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}; see the log of the proxy")


def nginx_with(folder, name, http):
    """An nginx with its temporary files in the folder."""
    paths = " ".join(
        f"{kind}_temp_path {folder}/{name}-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / f"{name}.conf"
    path.write_text(
        f"daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err;\n"
        f"events {{ worker_connections 8192; }}\n"
        f"http {{ access_log off; keepalive_requests 1000000000; {paths}\n{http}\n}}\n"
    )
    return ["nginx", "-c", str(path), "-e", f"{folder}/{name}.err"]


def upstream(folder, port):
    files = folder / "files"
    files.mkdir()
    (files / "big").write_text("y" * LARGE)
    body = "x" * SMALL
    return nginx_with(
        folder,
        "upstream",
        f'server {{ listen 127.0.0.1:{port} backlog=4096; listen 127.0.0.2:{port} backlog=4096; root {files}; location = / {{ return 200 "{body}"; }} }}',
    )


def nginx(folder, http, https, port):
    return nginx_with(
        folder,
        "nginx",
        f"""ssl_session_cache shared:s:10m; ssl_protocols TLSv1.2 TLSv1.3;
upstream u {{ server 127.0.0.1:{port}; keepalive 256; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{http} backlog=4096; listen 127.0.0.1:{https} ssl http2 backlog=4096;
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
  location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}""",
    )


def haproxy(folder, http, https, port):
    path = folder / "haproxy.cfg"
    path.write_text(
        f"""global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option forwardfor
  http-reuse always
frontend in
  bind 127.0.0.1:{http} backlog 4096
  bind 127.0.0.1:{https} ssl crt {folder}/both.pem alpn h2,http/1.1 backlog 4096
  default_backend out
backend out
  server one 127.0.0.1:{port} pool-max-conn 512
"""
    )
    return ["haproxy", "-db", "-f", str(path)]


def envoy(folder, http, https, port):
    binary = os.environ.get("ENVOY") or shutil.which("envoy")
    if not binary:
        return None
    types = "type.googleapis.com/envoy.extensions"

    def listener(name, port, tls):
        route = {"match": {"prefix": "/"}, "route": {"cluster": "u"}}
        router = {"@type": f"{types}.filters.http.router.v3.Router"}
        connections = {
            "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "use_remote_address": True,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        }
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}]}
        if tls:
            pair = {
                "certificate_chain": {"filename": f"{folder}/cert.pem"},
                "private_key": {"filename": f"{folder}/key.pem"},
            }
            context = {
                "@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [pair]},
            }
            chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        return {"name": name, "address": address, "filter_chains": [chain]}

    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    cluster = {
        "name": "u",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [{"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}]},
        "load_assignment": {
            "cluster_name": "u",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    listeners = [listener("http", http, False), listener("https", https, True)]
    path = folder / "envoy.json"
    path.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": [cluster]}}))
    return [binary, "-c", str(path), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]


GATEWAY_API = "gateway.networking.k8s.io/v1"


def named(kind, api, name, **fields):
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "bench"}, **fields}


def trigate(folder, http, https, port):
    binary = os.environ.get("TRIGATE") or str(ROOT / "target/release/trigate")
    if not shutil.which(binary):
        return None
    encoded = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in ("cert.pem", "key.pem")}
    listeners = [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "cert"}]}},
    ]

    def route(name, host, path):
        rule = {
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "backendRefs": [{"name": "up", "port": 80}],
        }
        spec = {"parentRefs": [{"name": "external"}], "hostnames": [host], "rules": [rule]}
        return named("HTTPRoute", GATEWAY_API, name, spec=spec)

    endpoints = {
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": ["127.0.0.1"]}],
    }
    slice_of = named("EndpointSlice", "discovery.k8s.io/v1", "up", **endpoints)
    slice_of["metadata"]["labels"] = {"kubernetes.io/service-name": "up"}
    others = int(os.environ.get("ROUTES", "1000"))
    objects = [
        named("GatewayClass", GATEWAY_API, "trigate", spec={"controllerName": "trigate.dev/gateway-controller"}),
        named("Gateway", GATEWAY_API, "external", spec={"gatewayClassName": "trigate", "listeners": listeners}),
        named(
            "Secret",
            "v1",
            "cert",
            type="kubernetes.io/tls",
            data={"tls.crt": encoded["cert.pem"], "tls.key": encoded["key.pem"]},
        ),
        named("Service", "v1", "up", spec={"ports": [{"name": "http", "port": 80, "targetPort": port}]}),
        slice_of,
        route("asked", "*.example.com", "/"),
        *(route(f"other-{n}", f"h{n % 250}.example.com", f"/app{n}") for n in range(others)),
    ]
    manifests = folder / "manifests"
    manifests.mkdir()
    (manifests / "all.yaml").write_text("\n---\n".join(json.dumps(one) for one in objects))
    own = [free_port() for _ in range(3)]
    path = folder / "proxy.toml"
    path.write_text(
        f"""[source.files]
paths = ["{manifests}"]
[gateways.external]
object = "bench/external"
bind = ["127.0.0.1"]
ports = {{ 80 = {http}, 443 = {https} }}
[drain]
grace = "0s"
[runtime]
threads = {os.environ.get("THREADS", "1")}
[admin]
address = "127.0.0.1:{own[0]}"
[stats]
address = "127.0.0.1:{own[1]}"
[ready]
address = "127.0.0.1:{own[2]}"
"""
    )
    return [binary, "run", "--config", str(path)]


PROXIES = {"nginx": nginx, "haproxy": haproxy, "envoy": envoy, "trigate": trigate}
