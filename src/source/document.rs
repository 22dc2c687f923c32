//! From the text of a file to objects, one document at a time.

use super::locate::locate;
use super::split::{Chunk, position, yaml_documents};
use super::suggest;
use crate::resource::{
    Object, ObjectHeader, ObjectMetadata, ObjectRef, Reading, Severity, Standing, read, standing,
};
use foldhash::fast::FixedState;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_saphyr::{MessageFormatter, Spanned};
use std::hash::BuildHasher;
use std::sync::Arc;

/// A place within a document: line and column, both counted from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spot {
    pub line: u32,
    pub column: u32,
}

impl Spot {
    /// What is beyond four thousand million lines stands there.
    pub fn new(line: usize, column: usize) -> Self {
        let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: number(line), column: number(column) }
    }

    /// The same spot in the file, where the document starts on this line.
    pub fn after(self, line: u32) -> Self {
        Self { line: line.saturating_add(self.line), column: self.column }
    }
}

/// One document of a file.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// The line of the file on which it starts, counted from 0.
    pub line: u32,
    /// Of its text: a document that did not change is not read again.
    hash: u64,
    pub content: Arc<Content>,
}

/// What a document holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub objects: Vec<(Object, Spot)>,
    pub faults: Vec<Fault>,
}

/// What is wrong with a document.
#[derive(Debug)]
pub(super) struct Fault {
    pub severity: Severity,
    pub object: ObjectRef,
    pub spot: Spot,
    pub field: String,
    pub reason: &'static str,
    pub message: String,
    /// Whether an object is missing because of it.
    pub hides: bool,
}

/// How the text of a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
}

/// Reads all documents of a text, those of `before` that did not change from there.
pub(super) fn read_documents(text: &str, format: Format, before: &[Document]) -> Vec<Document> {
    let (chunks, fault) = match format {
        Format::Yaml => (yaml_documents(text), None),
        Format::Json => json_documents(text),
    };
    let mut known: Vec<&Document> = before.iter().collect();
    known.sort_by_key(|document| document.hash);
    let mut documents: Vec<Document> = chunks
        .into_iter()
        .map(|Chunk { text, line }| {
            let hash = FixedState::with_seed(format as u64).hash_one(text);
            let content = match known.binary_search_by_key(&hash, |document| document.hash) {
                Ok(found) => known[found].content.clone(),
                Err(_) => Arc::new(read_content(text, format)),
            };
            Document { line: Spot::new(line, 0).line, hash, content }
        })
        .collect();
    documents.extend(fault.map(|fault| Document {
        line: 0,
        hash: 0,
        content: Arc::new(Content { objects: Vec::new(), faults: vec![fault] }),
    }));
    documents
}

/// The values of a JSON text, which may follow each other, and what is wrong with the rest of it.
fn json_documents(text: &str) -> (Vec<Chunk<'_>>, Option<Fault>) {
    let mut chunks = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        match value {
            Ok(value) => {
                let value = value.get();
                let line = position(text, value.as_ptr() as usize - text.as_ptr() as usize).0;
                chunks.push(Chunk { text: value, line });
            }
            Err(error) => return (chunks, Some(unreadable(&ObjectHeader::default(), (&error).into()))),
        }
    }
    (chunks, None)
}

/// An error of either parser.
struct ParseError {
    spot: Spot,
    message: String,
}

impl From<&serde_saphyr::Error> for ParseError {
    fn from(error: &serde_saphyr::Error) -> Self {
        let spot = error.location().map_or(Spot::default(), spot);
        let message =
            serde_saphyr::DefaultMessageFormatter.format_message(error.without_snippet()).into_owned();
        Self { spot, message }
    }
}

impl From<&serde_json::Error> for ParseError {
    fn from(error: &serde_json::Error) -> Self {
        let spot = Spot::new(error.line().saturating_sub(1), error.column().saturating_sub(1));
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        Self { spot, message }
    }
}

fn spot(location: serde_saphyr::Location) -> Spot {
    let from_zero = |number: u64| usize::try_from(number).unwrap_or_default().saturating_sub(1);
    Spot::new(from_zero(location.line()), from_zero(location.column()))
}

fn read_content(text: &str, format: Format) -> Content {
    let mut content = Content::default();
    let start = Spot::new(first_line(text), 0);
    // A parser run less, for nearly all documents say plainly what they are.
    if let Some(header) = plain_header(text, format) {
        match standing(&header) {
            Standing::Foreign if !is_misspelt(&header) => return content,
            Standing::Read if !is_misspelt(&header) => {
                content.take_or_note(read_object(text, format, &header), || known(text, format), start, text);
                return content;
            }
            _ => {}
        }
    }
    match read_header(text, format) {
        Err(error) => content.faults.push(unreadable(&guess(text), error)),
        Ok(header) if is_list(&header) => read_list(text, format, &header, &mut content),
        Ok(header) => {
            if claim(&header, start, &mut content) {
                content.take_or_note(read_object(text, format, &header), || header.clone(), start, text);
            }
        }
    }
    content
}

/// The header of a document that is no list and has it in plain words at the start of lines.
fn plain_header(text: &str, format: Format) -> Option<ObjectHeader> {
    let plain = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key))?.trim();
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"./-".contains(&byte);
        (!value.is_empty() && value.bytes().all(word)).then(|| value.to_owned())
    };
    let (api_version, kind) = (Some(plain("apiVersion: ")?), Some(plain("kind: ")?));
    let header = ObjectHeader { api_version, kind, metadata: None };
    (format == Format::Yaml && !is_list(&header)).then_some(header)
}

/// The header of a document as well as it can be known.
fn known(text: &str, format: Format) -> ObjectHeader {
    read_header(text, format).unwrap_or_else(|_| guess(text))
}

/// The line that holds the first word of a document, after its marker and comments.
fn first_line(text: &str) -> usize {
    let words = |line: &str| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !line.is_empty() && !line.starts_with('#')
    };
    text.lines().position(words).unwrap_or_default()
}

fn read_header(text: &str, format: Format) -> Result<ObjectHeader, ParseError> {
    match format {
        Format::Yaml => serde_saphyr::from_str_with_options(text, options()).map_err(|error| (&error).into()),
        Format::Json => serde_json::from_str(text).map_err(|error| (&error).into()),
    }
}

fn read_object(text: &str, format: Format, header: &ObjectHeader) -> Result<Option<Reading>, ParseError> {
    match format {
        Format::Yaml => serde_saphyr::with_deserializer_from_str_with_options(text, options(), |source| {
            read(header, source)
        })
        .map_err(|error| (&error).into()),
        Format::Json => {
            read(header, &mut serde_json::Deserializer::from_str(text)).map_err(|error| (&error).into())
        }
    }
}

/// Limits that keep a hostile file from costing memory, and that a list of 10,000 objects stays under.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 20_000_000, max_nodes: 10_000_000 },
        emit_comments: false,
        with_snippet: false,
    }
}

/// Which object a document without readable structure seems to be, by its lines.
fn guess(text: &str) -> ObjectHeader {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let metadata = ObjectMetadata { name: value("  name:"), namespace: value("  namespace:") };
    ObjectHeader { api_version: value("apiVersion:"), kind: value("kind:"), metadata: Some(metadata) }
}

fn is_list(header: &ObjectHeader) -> bool {
    header.kind.as_deref().is_some_and(|kind| kind.ends_with("List"))
}

/// `kind: List`, and lists of one kind as `kubectl get -o yaml` writes them.
fn read_list(text: &str, format: Format, header: &ObjectHeader, content: &mut Content) {
    #[derive(Deserialize)]
    struct YamlList {
        #[serde(default)]
        items: Option<Vec<Spanned<serde_json::Value>>>,
    }
    #[derive(Deserialize)]
    struct JsonList<'a> {
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    let items: Result<Vec<(Spot, serde_json::Value)>, ParseError> = match format {
        Format::Yaml => serde_saphyr::from_str_with_options::<YamlList>(text, options())
            .map(|list| {
                let items = list.items.unwrap_or_default().into_iter();
                items.map(|item| (spot(item.referenced), item.value)).collect()
            })
            .map_err(|error| (&error).into()),
        Format::Json => serde_json::from_str::<JsonList<'_>>(text)
            .map(|list| {
                let place = |item: &RawValue| {
                    let (line, column) =
                        position(text, item.get().as_ptr() as usize - text.as_ptr() as usize);
                    Spot::new(line, column)
                };
                let value = |item: &RawValue| serde_json::from_str(item.get()).unwrap_or_default();
                list.items.unwrap_or_default().into_iter().map(|item| (place(item), value(item))).collect()
            })
            .map_err(|error| (&error).into()),
    };
    match items {
        Err(error) => content.faults.push(unreadable(header, error)),
        Ok(items) => items.into_iter().for_each(|(spot, item)| read_item(header, spot, item, content)),
    }
}

fn read_item(list: &ObjectHeader, spot: Spot, item: serde_json::Value, content: &mut Content) {
    let error = |error: serde_json::Error| ParseError { spot, message: error.to_string() };
    let mut header = match ObjectHeader::deserialize(&item).map_err(error) {
        Ok(header) => header,
        Err(error) => return content.faults.push(unreadable(&ObjectHeader::default(), error)),
    };
    // The items of an `HTTPRouteList` need not say again what they are.
    header.kind = header.kind.or_else(|| {
        list.kind
            .as_deref()
            .and_then(|kind| kind.strip_suffix("List"))
            .filter(|kind| !kind.is_empty())
            .map(Into::into)
    });
    header.api_version = header.api_version.or_else(|| list.api_version.clone());
    if claim(&header, spot, content) {
        match read(&header, item).map_err(error) {
            Ok(Some(reading)) => content.take(reading, spot, None),
            Ok(None) => {}
            Err(error) => content.faults.push(unreadable(&header, error)),
        }
    }
}

/// Whether an object is probably not what it says, or of no version that there is.
fn is_misspelt(header: &ObjectHeader) -> bool {
    let kind = header.kind.as_deref().unwrap_or_default();
    match standing(header) {
        Standing::Read => suggest::versions(header.group(), kind, header.version()).is_some(),
        Standing::NotServed | Standing::Foreign => suggest::kind(header.group(), kind).is_some(),
    }
}

/// Whether the object is one to read; notes it when it is not and should be.
fn claim(header: &ObjectHeader, spot: Spot, content: &mut Content) -> bool {
    let mut note = |reason, message| {
        let object = header.reference();
        let (severity, field) = (Severity::Warning, String::new());
        content.faults.push(Fault { severity, object, spot, field, reason, message, hides: false });
    };
    let kind = header.kind.as_deref().unwrap_or_default();
    let meant = suggest::kind(header.group(), kind);
    match (standing(header), meant) {
        (Standing::Read, _) => {
            let version = header.version();
            if let Some([best, ..]) = suggest::versions(header.group(), kind, version) {
                let message = format!("there is no version `{version}` of {kind}; it is read as `{best}`");
                note("UnknownVersion", message);
            }
            return true;
        }
        (_, Some((version, meant))) => note(
            "UnsupportedKind",
            format!(
                "it is ignored, for there is no such kind; did you mean `apiVersion: {version}` with `kind: {meant}`?"
            ),
        ),
        (Standing::NotServed, None) => note(
            "UnsupportedKind",
            format!(
                "{} objects are not served yet; everything goes on as if it were not there",
                header.kind.as_deref().unwrap_or("such")
            ),
        ),
        (Standing::Foreign, None) if header.kind.is_none() => {
            note("NoKind", "this is no Kubernetes object: it has no `kind`; it is ignored".to_owned());
        }
        (Standing::Foreign, None) => {}
    }
    false
}

impl Content {
    fn take_or_note(
        &mut self,
        reading: Result<Option<Reading>, ParseError>,
        header: impl FnOnce() -> ObjectHeader,
        start: Spot,
        text: &str,
    ) {
        match reading {
            Ok(Some(reading)) => self.take(reading, start, Some(text)),
            Ok(None) => {}
            Err(error) => self.faults.push(unreadable(&header(), error)),
        }
    }

    fn take(&mut self, reading: Reading, start: Spot, text: Option<&str>) {
        let Reading { object, unknown } = reading;
        let reference = object.reference();
        for path in unknown {
            let at = text.and_then(|text| locate(text, &path)).map_or(start, spot);
            self.faults.push(unknown_field(reference.clone(), &path, at));
        }
        // Most documents hold one, and a vector that grows by itself begins with room for four.
        if self.objects.is_empty() {
            self.objects.reserve_exact(1);
        }
        self.objects.push((object, start));
    }
}

fn unknown_field(object: ObjectRef, path: &[String], spot: Spot) -> Fault {
    let name = path.last().map(String::as_str).unwrap_or_default();
    let hint = match suggest::field(name) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => String::new(),
    };
    Fault {
        severity: Severity::Warning,
        object,
        spot,
        field: written(path),
        reason: "UnknownField",
        message: format!("there is no field `{name}` here, it is ignored{hint}"),
        hides: false,
    }
}

/// A path as people write it: `spec.rules[0].backendRef`.
pub(super) fn written(path: &[String]) -> String {
    let mut text = String::new();
    for segment in path {
        if segment.bytes().all(|byte| byte.is_ascii_digit()) {
            text.push_str(&format!("[{segment}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(segment);
        }
    }
    text
}

fn unreadable(header: &ObjectHeader, error: ParseError) -> Fault {
    let ParseError { spot, message } = error;
    // The words of a parser may quote what it stumbled over.
    let message = match header.kind.as_deref() {
        Some("Secret") if !message.contains("stringData") => "the Secret cannot be read".to_owned(),
        _ => format!("cannot be read: {}", plainly(&message)),
    };
    Fault {
        severity: Severity::Error,
        object: header.reference(),
        spot,
        field: String::new(),
        reason: "Unreadable",
        message,
        hides: true,
    }
}

/// A parser's words without those of a programmer.
fn plainly(message: &str) -> String {
    [
        ("u16", "number up to 65535"),
        ("u32", "number from 0"),
        ("i64", "whole number"),
        ("a boolean", "true or false"),
    ]
    .into_iter()
    .fold(message.to_owned(), |text, (word, plain)| text.replace(word, plain))
}
