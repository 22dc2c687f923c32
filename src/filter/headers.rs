//! RequestHeaderModifier and ResponseHeaderModifier: set, add, remove.

use http::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

/// Edits of one header section. The Gateway API forbids one name in more than one action, so their order
/// does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaces all values of the name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Adds a value to those there are.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removes all values of the name.
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Applies the edits to a request.
    pub fn edit_request(&self, head: &mut RequestHeader) -> Result<()> {
        let Self { set, add, remove } = self;
        for name in remove {
            head.remove_header(name);
        }
        for (name, value) in set {
            head.insert_header(name.clone(), value.clone())?;
        }
        for (name, value) in add {
            head.append_header(name.clone(), value.clone())?;
        }
        Ok(())
    }

    /// Applies the edits to a response.
    pub fn edit_response(&self, head: &mut ResponseHeader) -> Result<()> {
        let Self { set, add, remove } = self;
        for name in remove {
            head.remove_header(name);
        }
        for (name, value) in set {
            head.insert_header(name.clone(), value.clone())?;
        }
        for (name, value) in add {
            head.append_header(name.clone(), value.clone())?;
        }
        Ok(())
    }
}
