//! The headers in which a trace travels: W3C's `traceparent`, B3 in one header and in several.

use crate::access_log::Trace;
use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3: HeaderName = HeaderName::from_static("b3");
const X_B3_TRACEID: HeaderName = HeaderName::from_static("x-b3-traceid");
const X_B3_SPANID: HeaderName = HeaderName::from_static("x-b3-spanid");
const X_B3_PARENTSPANID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const X_B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const X_B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// One way to tell of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heading {
    /// `traceparent`; `tracestate` is others' and goes on as it came (W3C Trace Context).
    W3c,
    /// `b3: {trace}-{span}-{sampled}-{parent}`.
    B3,
    /// `x-b3-traceid` and its kin.
    B3Multi,
}

/// What a request says of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    pub trace: u128,
    pub span: u64,
    /// `None` leaves it to us.
    pub sampled: Option<bool>,
}

/// Reads whichever is there, W3C's first. What is malformed counts as absent.
pub fn extract(headers: &HeaderMap) -> Option<Parent> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    text(&TRACEPARENT).and_then(traceparent).or_else(|| text(&B3).and_then(b3)).or_else(|| {
        let sampled = match (text(&X_B3_FLAGS), text(&X_B3_SAMPLED)) {
            (Some("1"), _) => Some(true),
            (_, sampled) => sampled.and_then(decision),
        };
        let (trace, span) = (text(&X_B3_TRACEID)?, text(&X_B3_SPANID)?);
        Some(Parent { trace: trace_id(trace)?, span: span_id(span)?, sampled })
    })
}

/// Writes all of these, in place of what came.
pub fn inject(headings: &[Heading], trace: &Trace, headers: &mut HeaderMap) {
    let span = trace.upstream.unwrap_or(trace.span);
    let sampled = u8::from(trace.sampled);
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    for heading in headings {
        match heading {
            Heading::W3c => put(TRACEPARENT, format!("00-{:032x}-{span:016x}-{sampled:02x}", trace.trace)),
            Heading::B3 => put(B3, format!("{:032x}-{span:016x}-{sampled}", trace.trace)),
            Heading::B3Multi => {
                put(X_B3_TRACEID, format!("{:032x}", trace.trace));
                put(X_B3_SPANID, format!("{span:016x}"));
                put(X_B3_SAMPLED, sampled.to_string());
                let parent = if trace.upstream.is_some() { trace.span } else { trace.parent };
                if parent != 0 {
                    put(X_B3_PARENTSPANID, format!("{parent:016x}"));
                }
            }
        }
    }
}

/// `00-{32 digits}-{16 digits}-{2 digits}`; a later version may have more after it (W3C Trace Context 3.2.2).
fn traceparent(text: &str) -> Option<Parent> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = version == "00";
    if version.len() != 2 || hexadecimal(version)? == 0xff || flags.len() != 2 || trace.len() != 32 {
        return None;
    }
    if known && parts.next().is_some() {
        return None;
    }
    let sampled = Some(hexadecimal(flags)? & 1 == 1);
    Some(Parent { trace: trace_id(trace)?, span: span_id(span)?, sampled })
}

fn b3(text: &str) -> Option<Parent> {
    let mut parts = text.trim().split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    Some(Parent { trace: trace_id(trace)?, span: span_id(span)?, sampled: parts.next().and_then(decision) })
}

/// `1` and `d` (debug) mean yes, `0` no.
fn decision(text: &str) -> Option<bool> {
    match text {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// 128 or, in B3, 64 bits.
fn trace_id(text: &str) -> Option<u128> {
    matches!(text.len(), 16 | 32).then_some(())?;
    hexadecimal(text).filter(|&id| id != 0)
}

fn span_id(text: &str) -> Option<u64> {
    (text.len() == 16).then_some(())?;
    hexadecimal(text).and_then(|id| u64::try_from(id).ok()).filter(|&id| id != 0)
}

/// Lower-case digits alone: `from_str_radix` takes signs, too.
fn hexadecimal(text: &str) -> Option<u128> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
    const SPAN: u64 = 0xb7ad_6b71_6920_3331;
    const IDS: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field =
            |(name, value): &(&str, &str)| (name.parse().expect("a name"), value.parse().expect("a value"));
        fields.iter().map(field).collect::<Vec<(HeaderName, HeaderValue)>>().into_iter().collect()
    }

    #[test]
    fn a_parent_is_read_in_each_of_its_forms() {
        let (trace, span) = IDS.split_once('-').expect("two");
        for (fields, sampled) in [
            (vec![("traceparent", format!("00-{IDS}-01"))], Some(true)),
            (vec![("traceparent", format!("00-{IDS}-00"))], Some(false)),
            (vec![("traceparent", format!("01-{IDS}-01-later"))], Some(true)),
            (vec![("b3", format!("{IDS}-1"))], Some(true)),
            (vec![("b3", format!("{IDS}-d"))], Some(true)),
            (vec![("b3", IDS.to_owned())], None),
            (vec![("x-b3-traceid", trace.into()), ("x-b3-spanid", span.into())], None),
            (
                vec![
                    ("x-b3-traceid", trace.into()),
                    ("x-b3-spanid", span.into()),
                    ("x-b3-sampled", "0".into()),
                ],
                Some(false),
            ),
        ] {
            let fields: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let parent = extract(&headers(&fields)).unwrap_or_else(|| panic!("{fields:?}"));
            assert_eq!(parent, Parent { trace: TRACE, span: SPAN, sampled }, "{fields:?}");
        }
    }

    #[test]
    fn what_is_malformed_counts_as_absent() {
        for value in [
            String::new(),
            format!("ff-{IDS}-01"),
            format!("00-{IDS}-01-more"),
            format!("00-{}-01", IDS.to_uppercase()),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(),
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".to_owned(),
            format!("00-+{}-01", &IDS[1..]),
        ] {
            assert_eq!(extract(&headers(&[("traceparent", &value)])), None, "{value}");
        }
    }

    #[test]
    fn backends_are_told_in_the_headers_that_are_wanted() {
        let trace = Trace { trace: TRACE, span: SPAN, upstream: None, parent: 1, sampled: true };
        let mut told = headers(&[("traceparent", "00-stale"), ("tracestate", "vendor=1")]);
        inject(&[Heading::W3c, Heading::B3, Heading::B3Multi], &trace, &mut told);
        for (name, want) in [
            ("traceparent", format!("00-{IDS}-01")),
            ("tracestate", "vendor=1".to_owned()),
            ("b3", format!("{IDS}-1")),
            ("x-b3-sampled", "1".to_owned()),
            ("x-b3-parentspanid", "0000000000000001".to_owned()),
        ] {
            assert_eq!(told[name], want, "{name}");
        }
        let parent = extract(&told).expect("it was told");
        assert_eq!((parent.trace, parent.span, parent.sampled), (TRACE, SPAN, Some(true)));
        let mut told = HeaderMap::new();
        inject(&[Heading::W3c], &Trace { upstream: Some(7), sampled: false, ..trace }, &mut told);
        assert_eq!(told["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-00");
    }
}
