//! Where in a document a field stands.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// The place of the value (for the last key: of the key) that `path` leads to. `None` where the text has no
/// such path, as for a value that an alias brings in.
pub(super) fn locate(text: &str, path: &[String]) -> Option<Location> {
    serde_saphyr::with_deserializer_from_str(text, |source| Step(path).deserialize(source)).ok().flatten()
}

/// The rest of a path, to be followed from here.
struct Step<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<Location>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<Location>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping or a sequence")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            match self.0 {
                [last] if *last == key.value => {
                    found = Some(key.referenced);
                    map.next_value::<IgnoredAny>()?;
                }
                [first, rest @ ..] if *first == key.value => found = map.next_value_seed(Step(rest))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let wanted = self.0.first().and_then(|first| first.parse::<usize>().ok());
        for index in 0.. {
            let more = if Some(index) != wanted {
                items.next_element::<IgnoredAny>()?.is_some()
            } else if let [_] = self.0 {
                let item = items.next_element::<Spanned<IgnoredAny>>()?;
                drain(&mut items)?;
                return Ok(item.map(|item| item.referenced));
            } else {
                let found = items.next_element_seed(Step(&self.0[1..]))?;
                drain(&mut items)?;
                return Ok(found.flatten());
            };
            if !more {
                break;
            }
        }
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

fn drain<'de, A: SeqAccess<'de>>(items: &mut A) -> Result<(), A::Error> {
    while items.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_line_and_column() {
        let text = "a: 1\nrules:\n- x: 2\n- matches:\n  - path: /\n    typo: 3\n";
        for (path, want) in [
            ("a", Some((1, 1))),
            ("rules", Some((2, 1))),
            ("rules/1", Some((4, 3))),
            ("rules/1/matches/0/typo", Some((6, 5))),
            ("rules/7", None),
            ("a/b", None),
        ] {
            let path: Vec<String> = path.split('/').map(str::to_owned).collect();
            let got = locate(text, &path).map(|at| (at.line(), at.column()));
            assert_eq!(got, want, "{path:?}");
        }
    }
}
