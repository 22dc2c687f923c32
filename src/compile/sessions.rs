//! `sessionPersistence` of a rule (GEP-1619).

use super::durations;
use crate::resource::SessionPersistence;
use crate::routing::{Carrier, Matches, PathMatch, RuleName, Session};
use http::HeaderName;

/// What the cookie or the header is called where nobody says.
const NAME: &str = "trigate-session";

/// How the rule keeps sessions, or the field that says it wrongly, and why.
pub(super) fn compile<'m>(
    written: &SessionPersistence,
    rule: &RuleName,
    matches: impl Iterator<Item = &'m Matches>,
) -> Result<Session, (&'static str, String)> {
    let SessionPersistence { session_name, absolute_timeout, idle_timeout, r#type, cookie_config } = written;
    if idle_timeout.is_some() {
        let why = "idleTimeout is gone from the Gateway API since 1.6; use absoluteTimeout";
        return Err(("sessionPersistence.idleTimeout", why.to_owned()));
    }
    let lifetime = match absolute_timeout.as_deref() {
        None => None,
        Some(text) => Some(durations::parse(text).ok_or_else(|| {
            ("sessionPersistence.absoluteTimeout", format!("`{text}` is no duration like `1h30m`"))
        })?),
    };
    let name = session_name.as_deref().unwrap_or(NAME);
    let carrier = match r#type.as_deref().unwrap_or("Cookie") {
        "Header" => Carrier::Header(HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            ("sessionPersistence.sessionName", format!("`{}` is no header name", name.escape_default()))
        })?),
        "Cookie" => {
            let lifetime = cookie_config.as_ref().and_then(|config| config.lifetime_type.as_deref());
            Carrier::Cookie {
                name: name.to_owned(),
                path: path(matches),
                permanent: lifetime == Some("Permanent"),
            }
        }
        other => {
            let why = format!("there is no type `{other}`; there are Cookie and Header");
            return Err(("sessionPersistence.type", why));
        }
    };
    Session::new(&rule.to_string(), carrier, lifetime)
        .map_err(|error| ("sessionPersistence", error.to_string()))
}

/// Where clients send the cookie back: the path that the rule serves, or everywhere when it serves several.
fn path<'m>(mut matches: impl Iterator<Item = &'m Matches>) -> String {
    match (matches.next().map(|matches| &matches.path), matches.next()) {
        (Some(PathMatch::Prefix(path) | PathMatch::Exact(path)), None) if path.starts_with('/') => {
            path.clone()
        }
        _ => "/".to_owned(),
    }
}
