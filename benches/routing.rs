//! How long a look-up takes in tables of 10, 1,000 and 100,000 routes, and what it allocates: nothing.
//!
//! `cargo bench --bench routing`. The columns of allocations are absent as long as there are none;
//! `tests/find_allocates_nothing.rs` holds that.

mod tables;

use divan::{AllocProfiler, Bencher, black_box};
use http::{HeaderMap, HeaderName};
use tables::{SOCKET, many_hosts, many_paths, one_match, request};
use trigate::routing::{HeaderMatch, Matches, PathMatch, QueryMatch, Request, RoutingTable, TextMatch};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const ROUTES: [usize; 3] = [10, 1_000, 100_000];

fn main() {
    divan::main();
}

fn find(bencher: Bencher, table: &RoutingTable, host: &str, path: &str, served: bool) {
    let headers = HeaderMap::new();
    let request = request(host, path, &headers);
    assert_eq!(table.find(SOCKET, &request).is_ok(), served, "{host}{path} is the case that is measured");
    bencher.bench_local(|| black_box(table).find(SOCKET, black_box(&request)).is_ok());
}

#[divan::bench(args = ROUTES)]
fn exact_host(bencher: Bencher, routes: usize) {
    let host = format!("app-{}.example.test", routes / 2 + 1);
    find(bencher, &many_hosts(routes), &host, "/library/sections/all", true);
}

#[divan::bench(args = ROUTES)]
fn wildcard_host(bencher: Bencher, routes: usize) {
    find(bencher, &many_hosts(routes), "a.wild-0.example.test", "/library/sections/all", true);
}

#[divan::bench(args = ROUTES)]
fn unknown_host(bencher: Bencher, routes: usize) {
    find(bencher, &many_hosts(routes), "nobody.a.example.test", "/library/sections/all", false);
}

#[divan::bench(args = ROUTES)]
fn exact_path_among_many_on_one_host(bencher: Bencher, routes: usize) {
    let path = format!("/section-{}/exact", routes / 2 + 1 - routes / 2 % 2);
    find(bencher, &many_paths(routes), "app.example.test", &path, true);
}

#[divan::bench(args = ROUTES)]
fn path_prefix_among_many_on_one_host(bencher: Bencher, routes: usize) {
    let path = format!("/section-{}/prefix/a/b/c/d", routes / 2 - routes / 2 % 2);
    find(bencher, &many_paths(routes), "app.example.test", &path, true);
}

#[divan::bench(args = ROUTES)]
fn unknown_path_on_one_host(bencher: Bencher, routes: usize) {
    find(bencher, &many_paths(routes), "app.example.test", "/section-0/nothing/a/b/c/d", false);
}

#[divan::bench]
fn repeated_header_and_encoded_query(bencher: Bencher) {
    let mut headers = HeaderMap::new();
    for value in ["reader", "writer"] {
        headers.append("x-role", value.parse().expect("a value"));
    }
    let exact = |text: &str| TextMatch::Exact(text.to_owned());
    let table = one_match(Matches {
        headers: [HeaderMatch { name: HeaderName::from_static("x-role"), value: exact("reader,writer") }]
            .into(),
        queries: [QueryMatch { name: "q".to_owned(), value: exact("a b&c") }].into(),
        ..Matches::of(PathMatch::prefix("/"))
    });
    let request = Request { query: "p=1&q=a%20b%26c", ..request("app.example.test", "/", &headers) };
    assert!(table.find(SOCKET, &request).is_ok(), "this is the case that is measured");
    bencher.bench_local(|| black_box(&table).find(SOCKET, black_box(&request)).is_ok());
}
