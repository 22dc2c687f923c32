//! The CORS filter.

use super::findings::Fault;
use crate::filter::{Allowed, Cors, OriginPattern};
use crate::resource;

/// `cors` of a filter.
pub(super) fn compile(written: &resource::Cors) -> Result<Cors, Fault> {
    let resource::Cors {
        allow_origins,
        allow_credentials,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
    } = written;
    let origins: Vec<_> = allow_origins
        .iter()
        .map(|text| OriginPattern::parse(text).map_err(|error| unsupported(error.to_string())))
        .collect::<Result<_, _>>()?;
    let mut cors = Cors::new(origins)
        .methods(allowed(allow_methods)?)
        .headers(allowed(allow_headers)?)
        .exposed(allowed(expose_headers)?)
        .credentials(allow_credentials.unwrap_or_default());
    if let Some(seconds) = max_age {
        cors = cors.max_age(*seconds);
    }
    Ok(cors)
}

fn allowed(names: &[Box<str>]) -> Result<Allowed, Fault> {
    Allowed::new(names.iter().map(|name| &**name))
        .map_err(|_| unsupported("a list of names has characters that a header cannot have"))
}

fn unsupported(message: impl Into<String>) -> Fault {
    Fault::new("UnsupportedValue", message)
}
