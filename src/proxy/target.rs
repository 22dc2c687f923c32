//! Whom and what a request asks for: its host and its normalised path, before anything routes on them.
//!
//! Rules and upstream see the same path, so that no spelling of it passes a rule that its meaning would not.

use crate::reply::Reply;
use std::borrow::Cow;

/// It cannot stand in a name.
const FORBIDDEN: u8 = 1;
/// It is a letter that names are not compared with.
const UPPER: u8 = 2;
/// What each byte is in a host's name: every request's is looked at.
const IN_A_NAME: [u8; 256] = {
    let mut table = [FORBIDDEN; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' => UPPER,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => 0,
            _ => FORBIDDEN,
        };
        byte += 1;
    }
    table
};

/// A host without port and trailing dot, in lower case.
///
/// # Errors
/// [`Reply::BadRequest`] for what is no `uri-host [ ":" port ]` (RFC 9112 3.2).
pub fn host(authority: &str) -> Result<Cow<'_, str>, Reply> {
    let (host, port) = split_port(authority);
    let (plain, upper) = if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').filter(|it| it.parse::<std::net::Ipv6Addr>().is_ok());
        (address.is_some(), host.bytes().any(|byte| byte.is_ascii_uppercase()))
    } else {
        let seen = host.bytes().fold(0, |seen, byte| seen | IN_A_NAME[usize::from(byte)]);
        (seen & FORBIDDEN == 0, seen & UPPER != 0)
    };
    if !plain || host.len() > 255 || !is_port(port) {
        return Err(Reply::BadRequest);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    Ok(if upper { host.to_ascii_lowercase().into() } else { host.into() })
}

/// `*DIGIT`, of which there are no more than ports.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn split_port(authority: &str) -> (&str, &str) {
    let after_address = match authority.as_bytes() {
        [b'[', rest @ ..] => memchr::memchr(b']', rest).map_or(0, |at| at + 2),
        _ => 0,
    };
    match memchr::memchr(b':', &authority.as_bytes()[after_address..]) {
        Some(at) => (&authority[..after_address + at], &authority[after_address + at + 1..]),
        None => (authority, ""),
    }
}

/// The path as rules and upstream see it: unreserved characters unescaped, dot segments and doubled slashes
/// gone (RFC 3986 6.2.2, Envoy's `normalize_path` and `merge_slashes`).
///
/// # Errors
/// [`Reply::BadPath`] for an escaped NUL or an escape that is none, [`Reply::EscapedSlash`] for an escaped slash or backslash, which
/// upstreams take for one thing or the other.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Reply> {
    if is_plain(path.as_bytes()) {
        return Ok(path.into());
    }
    let unescaped = unescape(path)?;
    Ok(remove_dots(&unescaped).into())
}

/// Whether there is nothing to normalise, as with nearly every request.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    path.iter().all(|&byte| {
        let plain = match byte {
            b'%' | b'\\' => false,
            b'/' | b'.' => previous != b'/',
            _ => true,
        };
        previous = byte;
        plain
    })
}

fn unescape(path: &str) -> Result<String, Reply> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if let Some(after) = tail.strip_prefix('\\') {
            // A browser sends a slash for it, and some servers take it for one.
            out.push('/');
            rest = after;
            continue;
        }
        let byte = tail.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let digits = tail.as_bytes().get(1..3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
        match byte.filter(|_| digits) {
            Some(0) | None => return Err(Reply::BadPath),
            Some(b'/' | b'\\') => return Err(Reply::EscapedSlash),
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(byte.into()),
            Some(_) => out.push_str(&tail[..3]),
        }
        rest = &tail[3..];
    }
    out.push_str(rest);
    Ok(out)
}

fn remove_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let directory = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let mut out = String::with_capacity(path.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if directory || out.is_empty() {
        out.push('/');
    }
    out
}

/// The location that [`Reply::EscapedSlash`] leads to: the same target with its slashes unescaped.
pub fn unescape_slashes(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.find('?') {
        Some(at) => path_and_query.split_at(at),
        None => (path_and_query, ""),
    };
    let mut out = path.to_owned();
    for escaped in ["%2F", "%2f", "%5C", "%5c"] {
        out = out.replace(escaped, "/");
    }
    // Two slashes at the start would make the location name another host (RFC 3986 4.2).
    format!("/{}{query}", out.trim_start_matches(['/', '\\']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_it_means() {
        for (path, want) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61dmin", "/admin"),
            ("/a%2e%2e/b", "/a../b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%20b", "/a%20b"),
            ("/a\\b", "/a/b"),
            ("/.hidden", "/.hidden"),
            ("/a.b", "/a.b"),
            ("/ä", "/ä"),
            ("/%c3%a4", "/%c3%a4"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(want), "{path}");
        }
        for (path, want) in [
            ("/a%2fb", Reply::EscapedSlash),
            ("/a%5Cb", Reply::EscapedSlash),
            ("/a%00", Reply::BadPath),
            ("/a%", Reply::BadPath),
            ("/a%zz", Reply::BadPath),
            ("/a%+1", Reply::BadPath),
        ] {
            assert_eq!(normalise(path), Err(want), "{path}");
        }
    }

    #[test]
    fn normalising_twice_changes_nothing_more() {
        for path in ["/%2561", "//a/%2e%2e//b/", "/a\\..\\b", "/%7e/./x"] {
            let once = normalise(path).expect("valid").into_owned();
            assert_eq!(normalise(&once).as_deref(), Ok(once.as_str()), "{path}");
        }
    }

    #[test]
    fn a_host_is_compared_without_port_case_and_dot() {
        for (text, want) in [
            ("a.test", Ok("a.test")),
            ("A.Test:8443", Ok("a.test")),
            ("a.test.", Ok("a.test")),
            ("a.test.:80", Ok("a.test")),
            ("[::1]:80", Ok("[::1]")),
            ("", Ok("")),
            ("a.test:", Ok("a.test")),
            ("a.test:80:80", Err(Reply::BadRequest)),
            ("user@a.test", Err(Reply::BadRequest)),
            ("a.test/x", Err(Reply::BadRequest)),
            ("a test", Err(Reply::BadRequest)),
            ("[::1", Err(Reply::BadRequest)),
            ("a.test:x", Err(Reply::BadRequest)),
            ("a.test:+80", Err(Reply::BadRequest)),
            ("a.test:65535", Ok("a.test")),
            ("a.test:65536", Err(Reply::BadRequest)),
            ("a,b", Err(Reply::BadRequest)),
        ] {
            assert_eq!(host(text).as_deref().map_err(|reply| *reply), want, "{text}");
        }
    }

    #[test]
    fn an_unescaped_slash_never_leads_to_another_host() {
        assert_eq!(unescape_slashes("/a%2fb?c=%2f"), "/a/b?c=%2f");
        assert_eq!(unescape_slashes("/%2fevil.test"), "/evil.test");
        assert_eq!(unescape_slashes("/%5c%2Fevil.test"), "/evil.test");
    }
}
