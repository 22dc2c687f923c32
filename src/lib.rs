//! Trigate: an L7 reverse-proxy gateway. One process, several gateways (external, internal, tailscale), one
//! routing table that is compiled from Gateway API objects and swapped while requests are served.
//!
//! This page is the architecture. Two files tell the story: `control.rs` (how configuration changes) and
//! `proxy/mod.rs` (how a request is served). They meet only in `live.rs`.
//!
//! ```text
//!                  CONTROL PATH   (one task; may allocate, may be slow)
//!  source ──▶ Snapshot ────────▶┌──────────── compile: pure, total ────────────┐
//!  files,     (what users wrote,│ gateways ▸ attach ▸ rules ▸ filters ▸        │
//!  kubernetes  debounced)       │ backends ▸ certificates                      │
//!     ▲                         └──────┬──────────────────────────┬────────────┘
//!     │ acme: orders                   │ RoutingTable             │ Diagnostics, reports
//!     │ certificates                   │ ClusterSpecs, TLS        ▼
//!                                      ▼                          log, `trigate check`, status (the leader writes)
//!                               control: reconcile living clusters and sockets, install
//!  ════════════════════════════ live: ArcSwap<Revision> ════════════════════════════════
//!                  DATA PATH      (all cores; no lock, no label look-up, no Kubernetes)
//!  client ▶ listener (accept, PROXY protocol) ▶ tls (SNI) ▶ proxy: route ▸ filters ▸ forward ▶ client
//!                  │                             │                    │
//!                  └ l4: TCP, TLS, UDP routes    └ Reply (404, …)     └ upstream: balance, pool, retry
//!                  OBSERVERS      telemetry: Envoy's metrics, access logs, spans · admin: stats, ready, dump
//! ```
//!
//! # Three vocabularies, two borders
//!
//! What users wrote ([`resource`]: lenient, plain values) → what it means ([`routing`], [`filter`],
//! [`upstream::ClusterSpec`]: valid by construction) → what is running (`upstream::Cluster`, `live::Revision`).
//! The first border is [`compile`], the second is `control`.
//!
//! # Invariants
//!
//! 1. `compile` is a pure, total function: no clock, environment, log, network; it returns diagnostics, never
//!    an error. Given what an earlier compilation left, it gives the same and takes less time.
//! 2. `resource` is lenient, one object at a time; the compiled types are strict. One object that cannot be read
//!    never hides another.
//! 3. A request sees one revision, from match to log line.
//! 4. Only `control` writes `live`. Only `control` owns the clusters and the set of sockets.
//! 5. What must survive a swap (connections, balancer state, counters) is keyed by name and lives beside the
//!    table, not in it.
//! 6. Per request: no lock, no metric label look-up, no allocation in [`routing::RoutingTable::find`].
//! 7. The source may fail: the last revision keeps serving. Kubernetes' words live in `resource`, `source` and
//!    `compile` only; `tests/architecture.rs` holds the table of who may import whom.
//! 8. Every failure a client sees is a [`reply::Reply`]; every fault of a user's object is a
//!    [`compile::Diagnostic`]; every fault of proxy.toml is a [`config::Fault`] with file, line and column,
//!    before a socket opens.
//! 9. Secrets are a type that prints `[redacted]`.
//! 10. No socket accepts before the first revision is live. A control task that ends early ends the process.
//!
//! # Threads
//!
//! Each worker thread has a current-thread runtime, its own `SO_REUSEPORT` sockets and its own pool of upstream
//! connections: a request stays on the core that accepted it. Everything else (source, control, admin, stats,
//! ready, the echo backend) shares one small runtime, so that neither a reload nor a scrape waits for traffic, or
//! traffic for them.
//!
//! # Decisions, with their reasons
//!
//! - **Our own accept loop, exchange and HTTP/1 codec.** Sockets come and go at run time, TLS settings belong to
//!   listeners and are swapped live, and the connection carries its gateway and real client address. pingora's
//!   `HttpProxy` is not used: it writes the last chunk of an HTTP/2 request twice in one case, and answers
//!   malformed requests before anybody can count them. Its HTTP/1 sessions are not, either: they read no request
//!   trailers and take an empty line for a last chunk, and a request that is checked strictly first would be
//!   parsed twice. [`http1`] parses once, into the types that everything else uses. pingora gives timers that cost
//!   nothing until they are waited for, and the options of sockets.
//! - **Early answers are `Err(Reply)`**, so `?` is the control flow of the data path.
//! - **Filters are a struct, not a list of `dyn`.** Fields run in their order, and full destructuring makes the
//!   compiler ask where a new one goes.
//! - **Precedence is a derived `Ord`** ([`routing::Rank`]). Lists are sorted when they are compiled; at run time
//!   the first match wins. A property test holds the index against a linear scan.
//! - **Own resource types** instead of a crate's: a typed list fails whole on one bad object.
//! - **`prometheus`, not an OpenMetrics crate**: Envoy has counters without `_total`, and dashboards know them.
//! - **rustls with aws-lc-rs**, installed by the first statement of `main`, because pingora compiles ring in and
//!   the first default wins.
//! - **Certificates in files are Secrets.** [`config::CertificateFiles`] gives a pair of PEM files the name of a
//!   Secret, so that listeners refer to both in the same way and both are replaced live in the same way.
//! - **Orders write, the source reads.** [`acme`] puts a certificate where the source looks for certificates
//!   anyway (a folder, or a Secret), so what was ordered is replaced live as what an operator renews. The data path
//!   knows of it only what an authority asks for while an order is pending: [`challenge`].
//!
//! # To add a filter or policy
//!
//! A field in `resource`, a few lines in `compile/`, `filter/<name>.rs` with its unit tests, a field and a line in
//! [`filter::Filters`], one golden pair, one end-to-end case. If more must change, the design is wrong: say so first.

pub mod access_log;
pub mod acme;
pub mod admin;
pub mod app;
pub mod bindings;
pub mod challenge;
pub mod compile;
pub mod config;
pub mod control;
pub mod echo;
pub mod filter;
pub mod host;
pub mod http1;
pub mod l4;
pub mod listener;
pub mod live;
pub mod moment;
pub mod proxy;
pub mod reply;
pub mod resource;
pub mod routing;
pub mod source;
pub mod stats;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod wire;
