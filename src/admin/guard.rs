//! Who may speak to the admin socket: programs on this machine, but no page in a browser on it.
//!
//! A page from elsewhere can make its own name resolve to 127.0.0.1 and then read answers as if they were its own
//! (DNS rebinding): such a request has that name as its Host. A page can also send a form to `localhost` and not
//! care for the answer: browsers put the page's Origin on it.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method};
use std::net::IpAddr;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Host,
    Origin,
}

/// Refuses what a page in a browser may have sent. `local` is the address that was connected to.
///
/// # Errors
/// Why the request is not answered.
pub fn check(method: &Method, headers: &HeaderMap, local: IpAddr) -> Result<(), Refused> {
    // Without a Host it is no browser.
    if let Some(host) = headers.get(HOST)
        && !host.to_str().is_ok_and(|host| is_of_this_machine(host, local))
    {
        return Err(Refused::Host);
    }
    if *method != Method::GET && *method != Method::HEAD && headers.contains_key(ORIGIN) {
        return Err(Refused::Origin);
    }
    Ok(())
}

fn is_of_this_machine(host: &str, local: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address.to_canonical() == local.to_canonical(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let local = IpAddr::from([10, 1, 2, 3]);
        for (host, answered) in [
            ("localhost", true),
            ("LocalHost:19000", true),
            ("127.0.0.1:19000", true),
            ("127.9.9.9", true),
            ("[::1]:19000", true),
            ("10.1.2.3:19000", true),
            ("10.1.2.4", false),
            ("evil.example", false),
            ("evil.example:19000", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
            ("a b", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).expect("a header value"));
            let want = if answered { Ok(()) } else { Err(Refused::Host) };
            assert_eq!(check(&Method::GET, &headers, local), want, "{host}");
        }
        assert_eq!(check(&Method::GET, &HeaderMap::new(), local), Ok(()));
    }

    #[test]
    fn a_page_can_order_nothing() {
        let local = IpAddr::from([127, 0, 0, 1]);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost:19000"));
        headers.insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert_eq!(check(&Method::POST, &headers, local), Err(Refused::Origin));
        headers.remove(ORIGIN);
        assert_eq!(check(&Method::POST, &headers, local), Ok(()));
    }
}
