//! What TLS handshakes agreed on, under the names that BoringSSL and so Envoy has for it.
//!
//! The names are a list, so that no peer can make the metrics grow; what is not on it shares one place.

use super::{Counter, Tally};

/// A number that IANA gave, and its name.
type Names = &'static [(u16, &'static str)];

const VERSIONS: Names = &[(0x0303, "TLSv1.2"), (0x0304, "TLSv1.3")];
const CIPHERS: Names = &[
    (0x1301, "TLS_AES_128_GCM_SHA256"),
    (0x1302, "TLS_AES_256_GCM_SHA384"),
    (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
    (0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (0xc02c, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (0xc02f, "ECDHE-RSA-AES128-GCM-SHA256"),
    (0xc030, "ECDHE-RSA-AES256-GCM-SHA384"),
    (0xcca8, "ECDHE-RSA-CHACHA20-POLY1305"),
    (0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305"),
];
const CURVES: Names = &[
    (0x0017, "P-256"),
    (0x0018, "P-384"),
    (0x0019, "P-521"),
    (0x001d, "X25519"),
    (0x11eb, "SecP256r1MLKEM768"),
    (0x11ec, "X25519MLKEM768"),
];
const OTHER: &str = "other";

/// What a handshake may agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreed {
    Version,
    Cipher,
    Curve,
}

impl Agreed {
    const ALL: [Self; 3] = [Self::Version, Self::Cipher, Self::Curve];

    const fn names(self) -> Names {
        match self {
            Self::Version => VERSIONS,
            Self::Cipher => CIPHERS,
            Self::Curve => CURVES,
        }
    }

    /// Where its counters begin; the last of them is for what has no name.
    const fn start(self) -> usize {
        match self {
            Self::Version => 0,
            Self::Cipher => VERSIONS.len() + 1,
            Self::Curve => VERSIONS.len() + CIPHERS.len() + 2,
        }
    }
}

const PLACES: usize = VERSIONS.len() + CIPHERS.len() + CURVES.len() + Agreed::ALL.len();

/// How many handshakes agreed on what, in one shard.
#[derive(Debug)]
pub struct Handshakes([Counter; PLACES]);

impl Default for Handshakes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Handshakes {
    /// Counts what one handshake agreed on, by its number in TLS.
    pub fn count(&self, agreed: Agreed, number: u16) {
        let names = agreed.names();
        let place = names.iter().position(|&(known, _)| known == number).unwrap_or(names.len());
        self.0[agreed.start() + place].inc();
    }
}

/// The handshakes of all shards, added up.
#[derive(Debug, Clone)]
pub struct HandshakesTotal([u64; PLACES]);

impl Default for HandshakesTotal {
    fn default() -> Self {
        Self([0; PLACES])
    }
}

impl HandshakesTotal {
    /// What was agreed on at least once, with its number.
    pub fn of(&self, agreed: Agreed) -> impl Iterator<Item = (&'static str, u64)> {
        let names = agreed.names().iter().map(|&(_, name)| name).chain([OTHER]);
        names.zip(self.0[agreed.start()..].iter().copied()).filter(|&(_, count)| count > 0)
    }
}

impl Tally for Handshakes {
    type Total = HandshakesTotal;

    fn add_to(&self, total: &mut HandshakesTotal) {
        self.0.iter().zip(&mut total.0).for_each(|(counter, total)| counter.add_to(total));
    }

    fn reset(&self) {
        self.0.iter().for_each(Counter::reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_agreed_on_is_counted_under_its_name_and_the_rest_together() {
        let handshakes = Handshakes::default();
        for (agreed, number) in [
            (Agreed::Version, 0x0304),
            (Agreed::Version, 0x0301),
            (Agreed::Cipher, 0xcca9),
            (Agreed::Curve, 0x001d),
            (Agreed::Curve, 0x001d),
            (Agreed::Curve, 0xffff),
        ] {
            handshakes.count(agreed, number);
        }
        let mut total = HandshakesTotal::default();
        handshakes.add_to(&mut total);
        let of = |agreed| total.of(agreed).collect::<Vec<_>>();
        assert_eq!(of(Agreed::Version), [("TLSv1.3", 1), ("other", 1)]);
        assert_eq!(of(Agreed::Cipher), [("ECDHE-ECDSA-CHACHA20-POLY1305", 1)]);
        assert_eq!(of(Agreed::Curve), [("X25519", 2), ("other", 1)]);
    }
}
