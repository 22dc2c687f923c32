//! What a listener's `tls.options` say of its handshakes. What they do not say is as for the whole gateway.

use super::findings::{Fault, listed};
use super::frontend;
use crate::resource::Listener;
use crate::tls::{TlsOptions, named};

const MIN_VERSION: &str = "trigate.dev/min-version";
const MAX_VERSION: &str = "trigate.dev/max-version";
const CIPHER_SUITES: &str = "trigate.dev/cipher-suites";
const CURVES: &str = "trigate.dev/curves";
const ALPN: &str = "trigate.dev/alpn";

/// All keys under `tls.options` that mean something.
pub(super) const KNOWN: [&str; 6] = [MIN_VERSION, MAX_VERSION, CIPHER_SUITES, CURVES, ALPN, frontend::TELL];

/// The options of a listener of a gateway that has these.
pub(super) fn read(listener: &Listener, of_gateway: &TlsOptions) -> Result<TlsOptions, Fault> {
    let is_http = &*listener.protocol == "HTTPS";
    let options = own(listener)?;
    let options = match is_http {
        true => options.within(of_gateway),
        // The gateway's protocols are those of HTTP.
        false => options.within(&TlsOptions { alpn: None, ..of_gateway.clone() }),
    };
    if let Some((key, message)) = options.contradiction() {
        return Err(fault(key, &message));
    }
    match options.not_http() {
        Some(id) if is_http => {
            Err(fault("alpn", &format!("an HTTPS listener does not speak `{id}`; there are h2 and http/1.1")))
        }
        _ => Ok(options),
    }
}

fn own(listener: &Listener) -> Result<TlsOptions, Fault> {
    let Some(tls) = &listener.tls else { return Ok(TlsOptions::default()) };
    let value = |key: &str| tls.options.get(key);
    let refused = |key: &str, message: String| fault(key, &message);
    let version =
        |key| value(key).map(|text| named(text.trim()).map_err(|error| refused(key, error))).transpose();
    Ok(TlsOptions {
        min_version: version(MIN_VERSION)?,
        max_version: version(MAX_VERSION)?,
        cipher_suites: list(value(CIPHER_SUITES), named).map_err(|error| refused(CIPHER_SUITES, error))?,
        curves: list(value(CURVES), named).map_err(|error| refused(CURVES, error))?,
        alpn: list(value(ALPN), |word| Ok(word.to_owned())).map_err(|error| refused(ALPN, error))?,
        ..TlsOptions::default()
    })
}

/// Words between commas.
fn list<T>(text: Option<&str>, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<Vec<T>>, String> {
    let Some(text) = text else { return Ok(None) };
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(read).collect::<Result<_, _>>().map(Some)
}

fn fault(key: &str, message: &str) -> Fault {
    Fault::new("UnsupportedValue", format!("{key}: {message}"))
}

/// What is said of options that nobody knows.
pub(super) fn unknown() -> Fault {
    let message = format!("under `tls.options` there are {}; others are ignored", listed(&KNOWN));
    Fault::new("UnsupportedValue", message)
}
