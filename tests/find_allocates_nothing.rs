//! Holds the invariant that a look-up allocates nothing, whether or not anything serves the request.

#[path = "../benches/tables/mod.rs"]
mod tables;

use http::{HeaderMap, HeaderName};
use regex::bytes::Regex;
use std::hint::black_box;
use tables::{SOCKET, many_hosts, many_paths, one_match, request};
use trigate::routing::{
    CookieMatch, HeaderMatch, Matches, PathMatch, QueryMatch, Request, RoutingTable, TextMatch,
};

fn allocations(table: &RoutingTable, host: &str, path: &str, served: bool) -> u64 {
    let mut headers = HeaderMap::new();
    headers.insert("accept", "*/*".parse().expect("a value"));
    counted(table, &request(host, path, &headers), served)
}

/// What the second look-up allocates: before the first one a regular expression has no room to work in.
fn counted(table: &RoutingTable, request: &Request<'_>, served: bool) -> u64 {
    assert_eq!(table.find(SOCKET, request).is_ok(), served, "{request:?} is the case that is measured");
    allocation_counter::measure(|| {
        black_box(black_box(table).find(SOCKET, black_box(request)).is_ok());
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
fn a_look_up_by_what_stands_in_pieces_allocates_nothing() {
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-role", "reader"), ("x-role", "writer"), ("cookie", "a=1; beta=\"yes\"")] {
        headers.append(name, value.parse().expect("a value"));
    }
    let exact = |text: &str| TextMatch::Exact(text.to_owned());
    let regex = |text: &str| TextMatch::Regex(Regex::new(text).expect("a regular expression"));
    for (header, query, cookie, asked, served) in [
        (exact("reader,writer"), exact("a b&c"), exact("yes"), "q=a+b%26c", true),
        (regex("^reader,w.*$"), regex("^a b&c$"), regex("^y..$"), "q=a%20b%26c", true),
        (regex("^reader$"), regex("^a b&c$"), exact("yes"), "q=a%20b%26c", false),
        (exact("reader,writer"), exact("a b"), exact("yes"), "%71=a%20b%21", false),
        (exact("reader,writer"), exact("a b"), regex("^n"), "%71=a%20b", false),
    ] {
        let matches = Matches {
            headers: [HeaderMatch { name: HeaderName::from_static("x-role"), value: header }].into(),
            queries: [QueryMatch { name: "q".to_owned(), value: query }].into(),
            cookies: [[[CookieMatch { name: "beta".to_owned(), value: cookie }].into()].into()].into(),
            ..Matches::of(PathMatch::prefix("/"))
        };
        let table = one_match(matches);
        let request = Request { query: asked, ..request("app.example.test", "/", &headers) };
        assert_eq!(counted(&table, &request, served), 0, "{asked}");
    }
}

#[test]
fn the_count_would_see_an_allocation() {
    let counted = allocation_counter::measure(|| {
        black_box(black_box("text").to_owned());
    });
    assert_eq!(counted.count_total, 1);
}
