//! An OCSP response that is stapled to a certificate (RFC 6960): as much of it as tells whether it may be.
//!
//! The client verifies its signature. What is checked here is what an operator gets wrong: the file of another
//! certificate, an error of the responder that was saved as if it were an answer, an answer that is too old.

use std::fmt;
use x509_parser::asn1_rs::{
    Any, Class, Enumerated, FromDer, GeneralizedTime, Integer, OctetString, Sequence, Tag,
};

/// A response about one certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Staple {
    /// As a handshake carries it.
    pub der: Vec<u8>,
    /// When there is newer word, in seconds since 1970; `None` when the responder does not say.
    pub next_update: Option<i64>,
}

impl fmt::Debug for Staple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Staple({} bytes, until {:?})", self.der.len(), self.next_update)
    }
}

impl Staple {
    /// Reads a response, DER as `openssl ocsp -respout` writes it, for the certificate with this serial number
    /// (hexadecimal digits).
    ///
    /// # Errors
    /// It is no response, or one that says nothing good of this certificate.
    pub fn from_der(der: &[u8], serial: &str) -> Result<Self, String> {
        let fault = |what: &str| format!("{what}; write it with `openssl ocsp -respout`");
        let (status, answers) = read(der).ok_or_else(|| fault("it is no OCSP response"))?;
        if status != 0 {
            return Err(fault(&format!("the responder answered with its error {status}")));
        }
        let answer = answers.into_iter().find(|answer| answer.serial == serial);
        match answer {
            None => Err(fault("it is about another certificate")),
            Some(Answer { good: false, .. }) => Err("it says that the certificate is not good".to_owned()),
            Some(Answer { next_update, .. }) => Ok(Self { der: der.to_vec(), next_update }),
        }
    }
}

/// What a response says of one certificate.
struct Answer {
    serial: String,
    good: bool,
    next_update: Option<i64>,
}

/// The status, and the answers of a successful response.
fn read(der: &[u8]) -> Option<(u32, Vec<Answer>)> {
    let (_, response) = Sequence::from_der(der).ok()?;
    let (rest, status) = Enumerated::from_der(&response.content).ok()?;
    if status.0 != 0 {
        return Some((status.0, Vec::new()));
    }
    let (_, bytes) = Any::from_der(rest).ok()?;
    let (_, bytes) = Sequence::from_der(bytes.data).ok()?;
    let (rest, _kind) = Any::from_der(&bytes.content).ok()?;
    let (_, basic) = OctetString::from_der(rest).ok()?;
    let (_, basic) =
        Sequence::from_der(basic.as_cow()).ok().map(|(rest, basic)| (rest.len(), basic.content.to_vec()))?;
    let (_, signed) = Sequence::from_der(&basic).ok()?;
    let mut rest: &[u8] = &signed.content;
    // The version, who answers, and when: all that stands before the answers.
    loop {
        let (after, next) = Any::from_der(rest).ok()?;
        if next.class() == Class::Universal && next.tag() == Tag::Sequence {
            return Some((0, answers(next.data)?));
        }
        rest = after;
    }
}

fn answers(mut rest: &[u8]) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    while !rest.is_empty() {
        let (after, answer) = Sequence::from_der(rest).ok()?;
        answers.push(self::answer(&answer.content)?);
        rest = after;
    }
    Some(answers)
}

fn answer(content: &[u8]) -> Option<Answer> {
    let (rest, id) = Sequence::from_der(content).ok()?;
    let (id, _algorithm) = Any::from_der(&id.content).ok()?;
    let (id, _issuer_name) = Any::from_der(id).ok()?;
    let (id, _issuer_key) = Any::from_der(id).ok()?;
    let (_, serial) = Integer::from_der(id).ok()?;
    let (rest, status) = Any::from_der(rest).ok()?;
    let (rest, _this_update) = GeneralizedTime::from_der(rest).ok()?;
    let next_update = Any::from_der(rest)
        .ok()
        .filter(|(_, next)| next.tag().0 == 0 && next.class() == Class::ContextSpecific);
    let next_update = match next_update {
        Some((_, next)) => {
            Some(GeneralizedTime::from_der(next.data).ok()?.1.utc_datetime().ok()?.unix_timestamp())
        }
        None => None,
    };
    let serial = serial.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Answer { serial, good: status.tag().0 == 0, next_update })
}
