//! Holds the invariant that a look-up allocates nothing, whether or not anything serves the request.

#[path = "../benches/tables/mod.rs"]
mod tables;

use http::HeaderMap;
use std::hint::black_box;
use tables::{SOCKET, many_hosts, many_paths, request};
use trigate::routing::RoutingTable;

fn allocations(table: &RoutingTable, host: &str, path: &str, served: bool) -> u64 {
    let mut headers = HeaderMap::new();
    headers.insert("accept", "*/*".parse().expect("a value"));
    let request = request(host, path, &headers);
    assert_eq!(table.find(SOCKET, &request).is_ok(), served, "{host}{path} is the case that is measured");
    allocation_counter::measure(|| {
        black_box(black_box(table).find(SOCKET, black_box(&request)).is_ok());
    })
    .count_total
}

#[test]
fn a_look_up_by_host_allocates_nothing() {
    let table = many_hosts(1_000);
    for (host, served) in [
        ("app-501.example.test", true),
        ("a.b.wild-10.example.test", true),
        ("nobody.a.example.test", false),
        ("nobody.elsewhere", false),
    ] {
        assert_eq!(allocations(&table, host, "/library/sections/all", served), 0, "{host}");
    }
}

#[test]
fn a_look_up_by_path_allocates_nothing() {
    let table = many_paths(1_000);
    for (path, served) in [
        ("/section-501/exact", true),
        ("/section-500/prefix/a/b/c", true),
        ("/section-500/nothing/a/b/c", false),
        ("/", false),
    ] {
        assert_eq!(allocations(&table, "app.example.test", path, served), 0, "{path}");
    }
}

#[test]
fn the_count_would_see_an_allocation() {
    let counted = allocation_counter::measure(|| {
        black_box(black_box("text").to_owned());
    });
    assert_eq!(counted.count_total, 1);
}
