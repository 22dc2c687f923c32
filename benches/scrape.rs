//! What counting costs a request, alone and while somebody scrapes, and what a scrape of 1,000 clusters costs, both in
//! our own text and through the `prometheus` crate's families.
//!
//! `cargo bench --bench scrape`.

#[allow(dead_code, reason = "the tests of the page use the rest of it")]
#[path = "../tests/metrics/rig.rs"]
mod rig;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use trigate::stats;
use trigate::telemetry::{Format, Registry, Revised, Selection, Server, Socket};
use trigate::upstream::Cluster;

const CLUSTERS: usize = 1_000;
const WORKERS: usize = 4;

fn main() {
    stats::set_workers(WORKERS);
    divan::main();
}

/// All clusters saw traffic on every worker.
fn registry() -> Registry {
    let clusters = rig::clusters(CLUSTERS);
    let sockets: Vec<Socket> = ["0.0.0.0:10080", "0.0.0.0:11080", "0.0.0.0:12080"]
        .into_iter()
        .map(|address| rig::socket(address, vec![]))
        .collect();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (clusters, sockets) = (&clusters, &sockets);
            scope.spawn(move || {
                stats::enter_worker(worker, WORKERS);
                clusters.iter().for_each(|cluster| rig::request(&sockets[0], cluster));
            });
        }
    });
    let registry = Registry::new(Arc::new(Server::new()), WORKERS);
    registry.revised(Revised {
        number: 1,
        installed: Instant::now(),
        compile: Duration::ZERO,
        clusters,
        routes: CLUSTERS,
        errors: 0,
        warnings: 0,
        table: Arc::default(),
        gateways: BTreeMap::new(),
    });
    registry.set_sockets(sockets);
    registry
}

#[divan::bench]
fn scrape(bencher: Bencher) {
    let registry = registry();
    let all = Selection::default();
    let length = registry.page(&all, Format::Text).len();
    bencher.counter(BytesCount::new(length)).bench_local(|| black_box(&registry).page(&all, Format::Text));
}

#[divan::bench]
fn scrape_of_one_family(bencher: Bencher) {
    let registry = registry();
    let filter = regex::Regex::new("upstream_rq_total$").expect("a regex");
    let one = Selection { filter: Some(filter), ..Selection::default() };
    bencher.bench_local(|| black_box(&registry).page(&one, Format::Text));
}

#[divan::bench]
fn stats_as_json(bencher: Bencher) {
    let registry = registry();
    let all = Selection::default();
    bencher.bench_local(|| black_box(&registry).stat_json(&all));
}

/// The same number of series as [`scrape`] has, as families of the `prometheus` crate through its encoder.
#[divan::bench]
fn scrape_through_families(bencher: Bencher) {
    const NUMBERS: usize = 60;
    const HISTOGRAMS: usize = 2;
    let clusters = rig::clusters(CLUSTERS);
    let metric = |cluster: &Cluster| {
        let mut label = LabelPair::default();
        label.set_name("envoy_cluster_name".to_owned());
        label.set_value(cluster.name().to_owned());
        Metric::from_label(vec![label])
    };
    let family = |name: String, kind, metrics| {
        let mut family = MetricFamily::default();
        family.set_name(name);
        family.set_field_type(kind);
        family.set_metric(metrics);
        family
    };
    let number = |cluster: &Arc<Cluster>| {
        let mut counter = Counter::default();
        counter.set_value(4.0);
        let mut metric = metric(cluster);
        metric.set_counter(counter);
        metric
    };
    let histogram = |cluster: &Arc<Cluster>| {
        let bucket = |i| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(f64::from(i));
            bucket.set_cumulative_count(4);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket((1..20).map(bucket).collect());
        let mut metric = metric(cluster);
        metric.set_histogram(histogram);
        metric
    };
    bencher.bench_local(|| {
        let numbers = (0..NUMBERS).map(|i| {
            let name = format!("envoy_cluster_upstream_number_{i}");
            family(name, MetricType::COUNTER, clusters.iter().map(number).collect())
        });
        let histograms = (0..HISTOGRAMS).map(|i| {
            let name = format!("envoy_cluster_upstream_time_{i}");
            family(name, MetricType::HISTOGRAM, clusters.iter().map(histogram).collect())
        });
        let families: Vec<_> = numbers.chain(histograms).collect();
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).expect("it is encoded");
        text
    });
}

/// What the data path counts for one request on connections that are open.
fn count(socket: &Socket, cluster: &Cluster) {
    let took = black_box(Duration::from_micros(700));
    socket.http.request_began();
    cluster.stats().request_began();
    cluster.stats().request_ended(black_box(Some(200)), took);
    cluster.stats().mine().cx_tx_bytes.add(black_box(200));
    cluster.stats().mine().cx_rx_bytes.add(black_box(1_000));
    socket.http.request_ended(black_box(Some(http::StatusCode::OK)), took);
    socket.http.traffic(black_box(200), black_box(1_000));
}

/// What the data path counts for one request while somebody scrapes 1,000 clusters without a pause: no more than
/// without, for a scrape reads what it adds up and holds up nobody.
#[divan::bench]
fn counting_one_request_while_scraped(bencher: Bencher) {
    let registry = registry();
    let (clusters, sockets) = (registry.revision().clusters.clone(), registry.sockets());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let all = Selection::default();
            while !over.load(Ordering::Relaxed) {
                black_box(registry.page(&all, Format::Text));
            }
        });
        stats::enter_worker(0, WORKERS);
        bencher.bench_local(|| count(black_box(&sockets[0]), black_box(&clusters[0])));
        over.store(true, Ordering::Relaxed);
    });
}

#[divan::bench(threads = [1, 2])]
fn counting_one_request(bencher: Bencher) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static WORKER: () = stats::enter_worker(NEXT.fetch_add(1, Ordering::Relaxed), WORKERS);
    }
    let socket = rig::socket("0.0.0.0:10080", vec![]);
    let cluster = rig::clusters(1)[0].clone();
    bencher.bench(|| {
        WORKER.with(|()| {});
        count(black_box(&socket), black_box(&cluster));
    });
}
