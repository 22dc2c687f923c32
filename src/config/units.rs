//! How values are written in proxy.toml: `"250ms"`, `"64KiB"`, `"[::]"`, `"network/external"`; parsed once, here.

use super::ObjectName;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A length of time: `250ms`, `5s`, `2m`, `1h`.
#[derive(JsonSchema)]
#[serde(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct DurationText(#[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h)$"))] String);

/// A number of bytes: `512B`, `64KiB`, `1MiB`.
#[derive(JsonSchema)]
#[serde(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct SizeText(#[schemars(regex(pattern = r"^[0-9]+(B|KiB|MiB|GiB)$"))] String);

/// `"250ms"`, `"5s"`, `"2m"`, `"1h"`.
pub mod duration {
    use super::{Deserializer, Duration, Serializer, parse_duration, text};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        text(deserializer, "a duration such as \"250ms\", \"5s\", \"2m\" or \"1h\"", parse_duration)
    }

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = duration.as_millis();
        serializer.collect_str(&match ms {
            ms if ms % 1000 != 0 => format!("{ms}ms"),
            ms if ms > 0 && ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
            ms => format!("{}s", ms / 1000),
        })
    }
}

/// A duration of which `"0s"` means that there is no limit.
pub mod limit {
    use super::{Deserializer, Duration, Serializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(deserializer).map(|duration| (!duration.is_zero()).then_some(duration))
    }

    pub fn serialize<S: Serializer>(limit: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        super::duration::serialize(&limit.unwrap_or_default(), serializer)
    }
}

/// `"512B"`, `"64KiB"`, `"1MiB"`, at most `"2GiB"`, which is 2 GiB - 1 (the largest window of HTTP/2).
pub mod size {
    use super::{Deserializer, Serializer, parse_size, text};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        text(deserializer, "a size such as \"512B\", \"64KiB\" or \"1MiB\"", parse_size)
    }

    pub fn serialize<S: Serializer>(bytes: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&match bytes {
            bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
            bytes => format!("{bytes}B"),
        })
    }
}

/// A list of addresses; IPv6 with or without brackets.
pub fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    struct Address(IpAddr);
    impl<'de> Deserialize<'de> for Address {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            text(deserializer, "an IP address such as \"0.0.0.0\" or \"[::]\"", parse_address).map(Self)
        }
    }
    Ok(Vec::<Address>::deserialize(deserializer)?.into_iter().map(|Address(address)| address).collect())
}

/// A list of networks; an address alone is the network of that one address.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    struct Network(IpNet);
    impl<'de> Deserialize<'de> for Network {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            text(deserializer, "a network such as \"10.42.0.0/16\" or \"fd00::/8\"", |text| {
                text.parse().ok().or_else(|| parse_address(text).map(IpNet::from))
            })
            .map(Self)
        }
    }
    Ok(Vec::<Network>::deserialize(deserializer)?.into_iter().map(|Network(network)| network).collect())
}

/// A path that is not empty.
pub fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    text(deserializer, "a path that is not empty", |text| (!text.is_empty()).then(|| PathBuf::from(text)))
}

/// The same of a key that may be absent.
pub fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    path(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "\"namespace/name\" of an object", |text| {
            let (namespace, name) = text.split_once('/')?;
            let fits = |part: &str| !part.is_empty() && !part.contains('/') && part.trim() == part;
            (fits(namespace) && fits(name))
                .then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
        })
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
    // A year is more than any limit here means, and leaves room for arithmetic on instants.
    .filter(|duration| *duration <= Duration::from_secs(365 * 24 * 3600))
}

fn parse_size(text: &str) -> Option<u32> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor).filter(|&bytes| bytes <= 1 << 31).map(|bytes| bytes.min((1 << 31) - 1) as u32)
}

fn parse_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// Reads a string with `parse`; whatever else stands there is an error that names what is expected.
fn text<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    struct Text<T, F>(&'static str, F, PhantomData<T>);
    impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Text<T, F> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(Text(expected, parse, PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_number_and_a_unit() {
        for (text, want) in [
            ("0s", Some(Duration::ZERO)),
            ("250ms", Some(Duration::from_millis(250))),
            ("5s", Some(Duration::from_secs(5))),
            ("2m", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3600))),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("1.5s", None),
            ("5 s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
            ("9000h", None),
        ] {
            assert_eq!(parse_duration(text), want, "{text}");
        }
    }

    #[test]
    fn sizes_are_binary_and_bounded() {
        for (text, want) in [
            ("512B", Some(512)),
            ("64KiB", Some(65536)),
            ("1MiB", Some(1 << 20)),
            ("2GiB", Some((1 << 31) - 1)),
            ("3GiB", None),
            ("64KB", None),
            ("64", None),
            ("KiB", None),
        ] {
            assert_eq!(parse_size(text), want, "{text}");
        }
    }

    #[test]
    fn only_ipv6_may_have_brackets() {
        for (text, want) in [
            ("0.0.0.0", Some("0.0.0.0")),
            ("[::]", Some("::")),
            ("::1", Some("::1")),
            ("[127.0.0.1]", None),
            ("localhost", None),
            ("[::", None),
        ] {
            assert_eq!(parse_address(text), want.map(|text| text.parse().expect("an address")), "{text}");
        }
    }
}
