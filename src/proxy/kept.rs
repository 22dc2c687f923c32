//! Sessions that are kept at one endpoint: which one a request belongs to, and how the client learns it.

use crate::live::Revision;
use crate::routing::{Backend, Rule, Session};
use crate::upstream::{Active, Address};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::{self, Display};
use std::time::{SystemTime, UNIX_EPOCH};

/// The backend and the endpoint that the request's session is with: also when the backend gets no new requests any
/// more, and not when the endpoint is gone.
pub fn find<'r>(
    session: &Session,
    revision: &Revision,
    rule: &'r Rule,
    request: &HeaderMap,
) -> Option<(&'r Backend, Active)> {
    let token = session.token(request, now())?;
    let cluster = revision.clusters.get(rule.backends.cluster()?.0 as usize)?;
    rule.backends.entries().iter().find_map(|backend| {
        let endpoints = &cluster.backend(backend.index?)?.endpoints;
        let active = endpoints.find(|address| session.names(&token, &Named(address)))?;
        Some((backend, active))
    })
}

/// The field that keeps a client's session with the endpoint.
pub fn field(session: &Session, endpoint: &Address, secure: bool) -> Option<(HeaderName, HeaderValue)> {
    session.field(&Named(endpoint), now(), secure).ok()
}

fn now() -> u64 {
    // Before 1970 there are no sessions to keep.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

struct Named<'a>(&'a Address);

impl Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::rig::{Rig, Upstream, body, local, status, values};
    use crate::routing::{Backend, Backends, Carrier, ClusterId, Rule, Session};
    use http::HeaderName;
    use std::net::SocketAddr;

    fn keeping(carrier: Carrier) -> impl FnOnce(&mut Rule) {
        move |rule| {
            let session = Session::new("httproute/default/app/rule/0", carrier, None);
            rule.terms.get_or_insert_default().session = Some(session.expect("valid"));
        }
    }

    fn cookie() -> Carrier {
        Carrier::Cookie { name: "sticky".into(), path: "/".into(), permanent: false }
    }

    fn pair(answer: &str) -> Option<&str> {
        values(answer, "set-cookie").first()?.split(';').next()
    }

    #[tokio::test]
    async fn a_session_stays_with_its_endpoint_and_is_given_one_cookie() {
        local(async {
            let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
            let rig = Rig::new(&[&[a.address, b.address]], keeping(cookie()));
            let first = rig.get("/").await;
            let lines = format!("cookie: x=1; {}\r\n", pair(&first).expect("a cookie"));
            for _ in 0..20 {
                let next = rig.send("GET", "/", &lines, "").await;
                assert_eq!((body(&next), pair(&next)), (body(&first), None));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn an_endpoint_that_is_gone_is_replaced_with_a_new_cookie() {
        local(async {
            let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
            let before = Rig::new(&[&[a.address]], keeping(cookie()));
            let first = before.get("/").await;
            let after = Rig::new(&[&[b.address]], keeping(cookie()));
            let lines = format!("cookie: {}\r\n", pair(&first).expect("a cookie"));
            let next = after.send("GET", "/", &lines, "").await;
            assert_eq!((status(&next), body(&next)), (200, "b"));
            let anew = pair(&next).expect("a new cookie");
            assert_ne!(Some(anew), pair(&first));
        })
        .await;
    }

    #[tokio::test]
    async fn a_session_beats_weights() {
        local(async {
            let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
            let weighted = |weights: [u32; 2]| {
                move |rule: &mut Rule| {
                    keeping(Carrier::Header(HeaderName::from_static("x-session")))(rule);
                    let backends = weights.iter().zip(0..).map(|(&weight, place)| Backend {
                        weight,
                        index: Some(place),
                        filters: None,
                    });
                    rule.backends = Backends::new(Some(ClusterId(0)), backends.collect());
                }
            };
            let endpoints: [&[SocketAddr]; 2] = [&[a.address], &[b.address]];
            let first = Rig::new(&endpoints, weighted([1, 0])).get("/").await;
            let lines = format!("x-session: {}\r\n", values(&first, "x-session")[0]);
            let later = Rig::new(&endpoints, weighted([0, 1]));
            assert_eq!(body(&later.send("GET", "/", &lines, "").await), "a");
            assert_eq!(body(&later.get("/").await), "b");
        })
        .await;
    }
}
