//! From matches as they are written to those the table asks, with their precedence.

use super::findings::Fault;
use super::routes::WrittenMatches;
use crate::resource::{ExtraMatch, GrpcMatch, GrpcMethodMatch, HttpMatch, HttpPathMatch, ValueMatch};
use crate::routing::{
    CookieLists, CookieMatch, HeaderMatch, Matches, PathMatch, PathRank, QueryMatch, TextMatch,
};
use http::{HeaderName, Method};
use regex::bytes::{Regex, RegexBuilder};
use std::collections::HashMap;

/// The largest program of a regular expression, in bytes.
const REGEX_SIZE: usize = 256 << 10;
/// The methods that the Gateway API knows.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// One match with the precedence of its path.
pub(super) type Ranked = (Matches, PathRank);

/// What is wrong with a match: the field within the rule, and why.
pub(super) type MatchFault = (String, Fault);

/// Regular expressions, of which equal ones are kept once.
#[derive(Default)]
pub(super) struct Regexes(HashMap<String, Result<Regex, String>>);

impl Regexes {
    /// The expression, to be found in the whole text. Its size is limited and its time is linear.
    fn whole(&mut self, pattern: &str) -> Result<Regex, Fault> {
        let known = self.0.entry(pattern.to_owned()).or_insert_with(|| build(pattern));
        known.clone().map_err(|fault| Fault::new("UnsupportedValue", fault))
    }
}

fn build(pattern: &str) -> Result<Regex, String> {
    let attempt = |pattern: &str, unicode| {
        RegexBuilder::new(pattern).unicode(unicode).size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).build()
    };
    // The user's own expression must be whole: `a)(b` is none, although `^(?:a)(b)$` is one. Classes are ASCII
    // as in Envoy's RE2, which keeps them small, unless the expression needs more.
    let unicode = attempt(pattern, false).is_err();
    attempt(pattern, unicode).and_then(|_| attempt(&format!("^(?:{pattern})$"), unicode)).map_err(|error| {
        match error {
            regex::Error::CompiledTooBig(_) => {
                format!("the regular expression needs more than {} KiB; make it simpler", REGEX_SIZE >> 10)
            }
            error => {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("`{pattern}` is no regular expression: {reason}")
            }
        }
    })
}

/// All matches of a rule. With a faulty one the rule is not served, for it would serve less or more than meant.
pub(super) fn compile(
    written: &WrittenMatches<'_>,
    regexes: &mut Regexes,
) -> Result<Vec<Ranked>, MatchFault> {
    let placed = |i: usize| move |(field, fault): MatchFault| (format!("matches[{i}].{field}"), fault);
    match written {
        WrittenMatches::Http(rule) if rule.matches.is_empty() => Ok(vec![everything()]),
        WrittenMatches::Grpc(rule) if rule.matches.is_empty() => Ok(vec![everything()]),
        WrittenMatches::Http(rule) => {
            rule.matches.iter().enumerate().map(|(i, one)| of_http(one, regexes).map_err(placed(i))).collect()
        }
        WrittenMatches::Grpc(rule) => {
            rule.matches.iter().enumerate().map(|(i, one)| of_grpc(one, regexes).map_err(placed(i))).collect()
        }
    }
}

fn everything() -> Ranked {
    (Matches::of(PathMatch::prefix("/")), PathRank::Prefix(0))
}

fn of_http(written: &HttpMatch, regexes: &mut Regexes) -> Result<Ranked, MatchFault> {
    let HttpMatch { path, method, headers, query_params } = written;
    let (path, rank) = http_path(path, regexes).map_err(|fault| ("path".to_owned(), fault))?;
    let method =
        method.as_deref().map(known_method).transpose().map_err(|fault| ("method".to_owned(), fault))?;
    let headers = self::headers(headers, regexes)?;
    let queries = queries(query_params, regexes)?;
    Ok((Matches { method, headers, queries, ..Matches::of(path) }, rank))
}

fn http_path(written: &HttpPathMatch, regexes: &mut Regexes) -> Result<(PathMatch, PathRank), Fault> {
    let value = written.value.as_deref().unwrap_or("/");
    match written.r#type.as_deref().unwrap_or("PathPrefix") {
        "Exact" => {
            absolute(value)?;
            Ok((PathMatch::Exact(value.to_owned()), PathRank::Exact(value.len())))
        }
        "PathPrefix" => {
            absolute(value)?;
            let length = value.trim_end_matches('/').len();
            Ok((PathMatch::prefix(value), PathRank::Prefix(length)))
        }
        "RegularExpression" => Ok((PathMatch::Regex(regexes.whole(value)?), PathRank::Regex(value.len()))),
        other => Err(unknown_type(other, "Exact, PathPrefix and RegularExpression")),
    }
}

/// Refuses paths that no normalised request has.
fn absolute(path: &str) -> Result<(), Fault> {
    let refuse = |message: String| Err(Fault::new("UnsupportedValue", message));
    if !path.starts_with('/') {
        return refuse(format!("path `{path}` does not start with a slash"));
    }
    if let Some(part) = unwritable(path) {
        let message = match part.strip_prefix('%') {
            Some(_) => format!(
                "no request has `{part}` in its path once that is normalised; write the character itself"
            ),
            None => format!("a path has `{part}` only percent-encoded; write `{}`", percent_encoded(part)),
        };
        return refuse(message);
    }
    let lower = path.to_ascii_lowercase();
    let never = ["//", "/./", "/../", "%2f", "#"].into_iter().find(|part| lower.contains(part));
    let never = never.or_else(|| ["/.", "/.."].into_iter().find(|end| lower.ends_with(end)));
    match never {
        Some(part) => refuse(format!("no request has `{part}` in its path once that is normalised")),
        None => Ok(()),
    }
}

/// The first part of a path that no request has like this: a character that stands there escaped only, or an escape
/// of one that needs none.
fn unwritable(path: &str) -> Option<&str> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    path.char_indices().find_map(|(at, character)| match character {
        '%' => {
            let escape = path.get(at..at + 3);
            let byte = escape.and_then(|escape| u8::from_str_radix(&escape[1..], 16).ok());
            byte.is_none_or(unreserved).then(|| escape.unwrap_or("%"))
        }
        _ if character.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@#".contains(character) => None,
        _ => path.get(at..at + character.len_utf8()),
    })
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn known_method(written: &str) -> Result<Method, Fault> {
    METHODS.into_iter().find(|method| method.as_str() == written).ok_or_else(|| {
        let upper = written.to_ascii_uppercase();
        let hint = METHODS.iter().find(|method| method.as_str() == upper);
        let hint = hint.map(|method| format!("; did you mean {method}?")).unwrap_or_default();
        Fault::new("UnsupportedValue", format!("there is no method `{written}`{hint}"))
    })
}

fn headers(written: &[ValueMatch], regexes: &mut Regexes) -> Result<Box<[HeaderMatch]>, MatchFault> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (i, header) in written.iter().enumerate() {
        let at = |fault| (format!("headers[{i}]"), fault);
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| {
            at(Fault::new("UnsupportedValue", format!("`{}` is no header name", header.name)))
        })?;
        // Of several with one name the first counts (`HTTPHeaderMatch.name`).
        if headers.iter().all(|known| known.name != name) {
            headers.push(HeaderMatch { name, value: text(header, regexes).map_err(at)? });
        }
    }
    Ok(headers.into())
}

fn queries(written: &[ValueMatch], regexes: &mut Regexes) -> Result<Box<[QueryMatch]>, MatchFault> {
    let mut queries: Vec<QueryMatch> = Vec::new();
    for (i, query) in written.iter().enumerate() {
        if query.name.is_empty() {
            let fault = Fault::new("UnsupportedValue", "the query parameter has no name");
            return Err((format!("queryParams[{i}]"), fault));
        }
        if queries.iter().all(|known| *known.name != *query.name) {
            let value = text(query, regexes).map_err(|fault| (format!("queryParams[{i}]"), fault))?;
            queries.push(QueryMatch { name: query.name.to_string(), value });
        }
    }
    Ok(queries.into())
}

fn text(written: &ValueMatch, regexes: &mut Regexes) -> Result<TextMatch, Fault> {
    match written.r#type.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(TextMatch::Exact(written.value.to_string())),
        "RegularExpression" => Ok(TextMatch::Regex(regexes.whole(&written.value)?)),
        other => Err(unknown_type(other, "Exact and RegularExpression")),
    }
}

/// What an HTTPRouteFilter asks of cookies beside the matches of the rule.
pub(super) fn cookies(written: &[ExtraMatch], regexes: &mut Regexes) -> Result<CookieLists, MatchFault> {
    let list = |(i, one): (usize, &ExtraMatch)| {
        if one.cookies.is_empty() {
            let fault = Fault::new("UnsupportedValue", "it asks for nothing; give it `cookies`");
            return Err((format!("matches[{i}]"), fault));
        }
        let cookie = |(k, cookie): (usize, &ValueMatch)| match text(cookie, regexes) {
            Ok(value) => Ok(CookieMatch { name: cookie.name.to_string(), value }),
            Err(fault) => Err((format!("matches[{i}].cookies[{k}]"), fault)),
        };
        one.cookies.iter().enumerate().map(cookie).collect()
    };
    written.iter().enumerate().map(list).collect()
}

fn unknown_type(written: &str, known: &str) -> Fault {
    Fault::new("UnsupportedValue", format!("there is no type `{written}`; there are {known}"))
}

fn of_grpc(written: &GrpcMatch, regexes: &mut Regexes) -> Result<Ranked, MatchFault> {
    let GrpcMatch { method, headers } = written;
    let (path, rank) = grpc_path(method.as_ref(), regexes).map_err(|fault| ("method".to_owned(), fault))?;
    let headers = self::headers(headers, regexes)?;
    Ok((Matches { headers, ..Matches::of(path) }, rank))
}

/// The path of a call is `/service/method`. Characters of the service count before those of the method
/// (`GRPCRouteRule.matches`), so both lengths make one number.
fn grpc_path(
    written: Option<&GrpcMethodMatch>,
    regexes: &mut Regexes,
) -> Result<(PathMatch, PathRank), Fault> {
    let Some(GrpcMethodMatch { r#type, service, method }) = written else {
        return Ok((PathMatch::prefix("/"), PathRank::Prefix(0)));
    };
    let given = |text: &Option<Box<str>>| text.clone().filter(|text| !text.is_empty());
    let (service, method) = (given(service), given(method));
    if r#type.as_deref().unwrap_or("Exact") == "Exact" {
        callable(service.as_deref(), "service", true)?;
        callable(method.as_deref(), "method", false)?;
    }
    let length = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
    let rank = length(&service) << 16 | length(&method);
    let any = "[^/]+";
    match (r#type.as_deref().unwrap_or("Exact"), &service, &method) {
        (_, None, None) => Err(Fault::new("UnsupportedValue", "neither service nor method is given")),
        ("Exact", Some(service), Some(method)) => {
            Ok((PathMatch::Exact(format!("/{service}/{method}")), PathRank::Exact(rank)))
        }
        ("Exact", service, method) => {
            let literal = |text: &Option<Box<str>>| text.as_deref().map_or(any.to_owned(), regex::escape);
            let pattern = format!("/{}/{}", literal(service), literal(method));
            Ok((PathMatch::Regex(regexes.whole(&pattern)?), PathRank::Regex(rank)))
        }
        ("RegularExpression", service, method) => {
            for pattern in [service, method].into_iter().flatten() {
                regexes.whole(pattern)?;
            }
            let part = |text: &Option<Box<str>>| {
                text.as_deref().map_or(any.to_owned(), |text| format!("(?:{text})"))
            };
            let pattern = format!("/{}/{}", part(service), part(method));
            Ok((PathMatch::Regex(regexes.whole(&pattern)?), PathRank::Regex(rank)))
        }
        (other, _, _) => Err(unknown_type(other, "Exact and RegularExpression")),
    }
}

/// Refuses names that no service or method has: letters, digits and underscores, those of a service in parts with dots
/// between them.
fn callable(name: Option<&str>, what: &str, dotted: bool) -> Result<(), Fault> {
    let Some(name) = name else { return Ok(()) };
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let known = match dotted {
        true => name.strip_prefix('.').unwrap_or(name).split('.').all(is_word),
        false => is_word(name),
    };
    match known {
        true => Ok(()),
        false => {
            Err(Fault::new("UnsupportedValue", format!("`{name}` is no name of a {what}; no call has it")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_expression_holds_for_the_whole_text_only() {
        let mut regexes = Regexes::default();
        for (pattern, text, want) in [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a|/b", "/b", true),
            ("/a|/b", "x/b", false),
            (r"/\d+", "/12", true),
            ("/ä", "/ä", true),
            (r"/\p{Greek}", "/α", true),
        ] {
            assert_eq!(regexes.whole(pattern).unwrap().is_match(text.as_bytes()), want, "{pattern} {text}");
        }
    }

    #[test]
    fn a_regular_expression_that_is_none_or_too_large_is_refused() {
        for (pattern, want) in [
            ("(", "no regular expression"),
            ("a)(b", "no regular expression"),
            ("(?=a)", "no regular expression"),
            ("(a{100}){100}{100}", "KiB"),
        ] {
            let fault = Regexes::default().whole(pattern).unwrap_err();
            assert!(fault.message.contains(want), "{pattern}: {}", fault.message);
        }
    }

    #[test]
    fn paths_that_no_request_has_are_refused() {
        for (path, want) in [
            ("/", true),
            ("/a/b.c", true),
            ("/a/..b", true),
            ("a", false),
            ("/a//b", false),
            ("/a/../b", false),
            ("/a/..", false),
            ("/a%2Fb", false),
            ("/caf%C3%A9", true),
            ("/caf%c3%a9/@:!", true),
            ("/café", false),
            ("/a b", false),
            ("/%61", false),
            ("/100%", false),
            ("/a?b", false),
            ("/a#b", false),
        ] {
            assert_eq!(absolute(path).is_ok(), want, "{path}");
        }
    }

    #[test]
    fn names_that_no_call_has_are_refused() {
        for (service, method, want) in [
            ("notes.v1.Notes", "Write", true),
            (".notes._Notes", "_write2", true),
            ("notes/Notes", "Write", false),
            ("notes..Notes", "Write", false),
            ("2notes", "Write", false),
            ("notes", "Wri te", false),
            ("notes", "a.b", false),
        ] {
            let written =
                GrpcMethodMatch { r#type: None, service: Some(service.into()), method: Some(method.into()) };
            assert_eq!(
                grpc_path(Some(&written), &mut Regexes::default()).is_ok(),
                want,
                "{service}/{method}"
            );
        }
    }

    #[test]
    fn the_service_of_a_call_counts_more_than_its_method() {
        let rank = |service: Option<&str>, method: Option<&str>| {
            let written = GrpcMethodMatch {
                r#type: None,
                service: service.map(Into::into),
                method: method.map(Into::into),
            };
            grpc_path(Some(&written), &mut Regexes::default()).unwrap().1
        };
        assert!(rank(Some("a"), Some("b")) > rank(Some("long.Service"), None));
        assert!(rank(Some("a"), None) > rank(None, Some("LongMethod")));
        assert!(rank(Some("ab"), Some("c")) > rank(Some("a"), Some("cdef")));
    }
}
