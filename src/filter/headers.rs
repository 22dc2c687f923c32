//! RequestHeaderModifier and ResponseHeaderModifier: set, add, remove.

use http::{HeaderMap, HeaderName, HeaderValue};

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
    /// Applies the edits. A section that is full (32,768 fields) stays as it is.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let Self { set, add, remove } = self;
        for name in remove {
            headers.remove(name);
        }
        for (name, value) in set {
            let _ = headers.try_insert(name.clone(), value.clone());
        }
        for (name, value) in add {
            let _ = headers.try_append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_add_appends_remove_deletes() {
        let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers = HeaderMap::from_iter([field("a", "1"), field("b", "1"), field("c", "1")]);
        headers.append("a", HeaderValue::from_static("2"));
        let edits = HeaderEdits {
            set: vec![field("a", "3"), field("d", "")],
            add: vec![field("b", "2")],
            remove: vec![HeaderName::from_static("c")],
        };
        edits.apply(&mut headers);
        let all = |name| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("a"), all("b"), all("c"), all("d")), (vec!["3"], vec!["1", "2"], vec![], vec![""]));
    }
}
