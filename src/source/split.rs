//! Cuts the text of a file into documents, so that a document that is no YAML hides no other.

/// A part of a file, with the line on which it starts, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub text: &'a str,
    pub line: usize,
}

/// The YAML documents of a file. A marker at the start of a line ends a document whatever stands before it
/// (YAML 1.2.2, 9.1.2), so this needs no parser. Documents without content are left out.
pub(super) fn yaml_documents(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        // `...` ends a document and starts none: what follows it is the next one.
        let cut = match marker(line) {
            Some("---") => Some((offset, number)),
            Some(_) => Some((offset + line.len(), number + 1)),
            None => None,
        };
        if let Some((cut, cut_line)) = cut {
            chunks.push(Chunk { text: &text[start..offset], line: start_line });
            (start, start_line) = (cut, cut_line);
        }
        offset += line.len();
    }
    chunks.push(Chunk { text: &text[start..], line: start_line });
    chunks.retain(|chunk| !chunk.text.lines().all(is_blank));
    chunks
}

/// The document marker that a line starts with.
fn marker(line: &str) -> Option<&str> {
    let (marker, rest) = line.split_at_checked(3)?;
    let ends = rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
    ((marker == "---" || marker == "...") && ends).then_some(marker)
}

fn is_blank(line: &str) -> bool {
    let content = if marker(line) == Some("---") { &line[3..] } else { line };
    let content = content.trim();
    content.is_empty() || content.starts_with('#') || line.starts_with('%')
}

/// Line and column, both counted from 0, of a byte in a text.
pub(super) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte.min(text.len())];
    let line = memchr::memchr_iter(b'\n', before.as_bytes()).count();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_cut_at_markers_and_keep_their_lines() {
        for (text, want) in [
            ("a: 1\n", vec![("a: 1\n", 0)]),
            ("---\na: 1\n---\nb: 2\n", vec![("---\na: 1\n", 0), ("---\nb: 2\n", 2)]),
            ("# only\n---\n\n--- # words\na: 1", vec![("--- # words\na: 1", 3)]),
            ("a: |\n  ---\n  x\n", vec![("a: |\n  ---\n  x\n", 0)]),
            ("a: ---\n", vec![("a: ---\n", 0)]),
            ("----\n", vec![("----\n", 0)]),
            ("a: 1\n...\nb: 2\n", vec![("a: 1\n", 0), ("b: 2\n", 2)]),
            ("a: 1\r\n---\r\nb: 2\r\n", vec![("a: 1\r\n", 0), ("---\r\nb: 2\r\n", 1)]),
            ("%YAML 1.2\n---\na: 1\n", vec![("---\na: 1\n", 1)]),
            ("--- {a: 1}\n", vec![("--- {a: 1}\n", 0)]),
            ("\u{feff}a: 1\n", vec![("a: 1\n", 0)]),
            ("ä\n", vec![("ä\n", 0)]),
            ("", vec![]),
        ] {
            let got: Vec<_> = yaml_documents(text).iter().map(|chunk| (chunk.text, chunk.line)).collect();
            assert_eq!(got, want, "{text:?}");
        }
    }
}
