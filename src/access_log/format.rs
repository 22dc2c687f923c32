//! Formats of a line: text with operators in it, or a JSON object whose values are such texts.

use super::operator::{Field, Operator};
use super::record::Record;
use super::render::{self, Value};
use http::HeaderName;
use std::collections::{BTreeMap, BTreeSet};

/// How a line is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    Text(Template),
    /// In the order of the names, as Envoy writes them.
    Json(Vec<(Box<str>, Template)>),
}

/// A text with operators in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Operator(Operator, Option<usize>),
}

/// The fields of Envoy Gateway's default format.
const DEFAULT: [(&str, &str); 24] = [
    (":authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("protocol", "%PROTOCOL%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user-agent", "%REQ(USER-AGENT)%"),
    ("x-envoy-origin-path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("x-envoy-upstream-service-time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x-forwarded-for", "%REQ(X-FORWARDED-FOR)%"),
    ("x-request-id", "%REQ(X-REQUEST-ID)%"),
];

impl Format {
    /// Envoy Gateway's default: one JSON object for each exchange.
    pub fn envoy_gateway() -> Self {
        let fields = DEFAULT.iter().map(|(name, text)| {
            ((*name).into(), Template::parse(text).expect("the operators above are known"))
        });
        Self::Json(fields.collect())
    }

    /// A line of text. A line feed at its end may be left out.
    ///
    /// # Errors
    /// An operator that is none, or that is not known.
    pub fn text(text: &str) -> Result<Self, String> {
        Template::parse(text.strip_suffix('\n').unwrap_or(text)).map(Self::Text)
    }

    /// A JSON object with these fields.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    pub fn json(fields: &BTreeMap<String, String>) -> Result<Self, (String, String)> {
        let read = |(name, text): (&String, &String)| match Template::parse(text) {
            Ok(template) => Ok((name.as_str().into(), template)),
            Err(error) => Err((name.clone(), error)),
        };
        fields.iter().map(read).collect::<Result<_, _>>().map(Self::Json)
    }

    /// A text that is no line and so escapes nothing: see [`Self::value`].
    ///
    /// # Errors
    /// An operator that is none, or that is not known.
    pub fn of_value(text: &str) -> Result<Self, String> {
        Template::parse(text).map(|template| Self::Json(vec![("".into(), template)]))
    }

    /// What its first value says; `None` when it is one operator that says nothing.
    pub fn value(&self, record: &Record) -> Option<String> {
        match self.values(record).into_iter().next()?.1 {
            Value::Absent => None,
            Value::Number(number) => Some(number.to_string()),
            Value::Text(text) => Some(String::from_utf8_lossy(&text).into_owned()),
        }
    }

    /// The fields that it reads: of requests, of responses, of trailers.
    pub fn reads(&self) -> [Vec<HeaderName>; 3] {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for read in self.operators().map(Operator::reads) {
            all.iter_mut().zip(read).for_each(|(all, more)| all.extend(more));
        }
        all
    }

    /// What is wrong with it although it can be written: operators of Envoy's that say nothing here.
    pub fn remark(&self) -> Option<String> {
        let blank: Vec<String> =
            self.operators().filter_map(|one| Some(format!("%{}%", one.blank()?))).collect();
        let (what, verb) = (blank.join(", "), if blank.len() == 1 { "stays" } else { "stay" });
        (!blank.is_empty())
            .then(|| format!("{what} {verb} empty: trigate does not note what Envoy would say"))
    }

    /// Takes the variables of the environment away that are not allowed, as if they were not set, and names them.
    pub fn withhold(&mut self, allowed: &BTreeSet<String>) -> Vec<Box<str>> {
        let templates: Vec<&mut Template> = match self {
            Self::Text(template) => vec![template],
            Self::Json(fields) => fields.iter_mut().map(|(_, template)| template).collect(),
        };
        let mut withheld = Vec::new();
        for piece in templates.into_iter().flat_map(|template| &mut template.0) {
            let Piece::Operator(Operator::Environment { name, value }, _) = piece else { continue };
            if !allowed.contains(&**name) {
                *value = None;
                withheld.push(name.clone());
            }
        }
        withheld
    }

    fn operators(&self) -> impl Iterator<Item = &Operator> {
        let templates: Vec<&Template> = match self {
            Self::Text(template) => vec![template],
            Self::Json(fields) => fields.iter().map(|(_, template)| template).collect(),
        };
        templates.into_iter().flat_map(|template| &template.0).filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Operator(operator, _) => Some(operator),
        })
    }

    /// Writes the line of a record, with its line feed. Nothing that a client sends can end the line, or a value
    /// within it.
    pub fn line(&self, record: &Record, out: &mut Vec<u8>) {
        match self {
            Self::Text(template) => template.write(record, out, render::text),
            Self::Json(fields) => {
                out.push(b'{');
                for (place, (name, template)) in fields.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    render::json_text(name.as_bytes(), out);
                    out.push(b':');
                    template.json(record, out);
                }
                out.push(b'}');
            }
        }
        out.push(b'\n');
    }

    /// The values of a record by their names; a text has one without a name. For sinks that keep names apart.
    pub fn values(&self, record: &Record) -> Vec<(&str, Value)> {
        match self {
            Self::Text(template) => {
                let mut out = Vec::new();
                template.write(record, &mut out, render::text);
                vec![("", Value::Text(out))]
            }
            Self::Json(fields) => {
                fields.iter().map(|(name, template)| (&**name, template.value(record))).collect()
            }
        }
    }
}

impl Template {
    /// Reads a text. `%%` is a percent sign.
    ///
    /// # Errors
    /// What is wrong with which operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let end = end_of(rest).ok_or_else(|| format!("`%{rest}` lacks its closing `%`"))?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(Piece::parse(&rest[..end])?);
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(Self(pieces))
    }

    /// The value of a JSON field: a template that is one operator keeps its type.
    fn value(&self, record: &Record) -> Value {
        if let [Piece::Operator(operator, most)] = self.0.as_slice() {
            return render::value(operator, record).cut(*most);
        }
        let mut out = Vec::new();
        self.write(record, &mut out, |text, out| out.extend_from_slice(text));
        Value::Text(out)
    }

    fn json(&self, record: &Record, out: &mut Vec<u8>) {
        match self.value(record) {
            Value::Absent => out.extend_from_slice(b"null"),
            Value::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            Value::Text(text) => render::json_text(&text, out),
        }
    }

    fn write(&self, record: &Record, out: &mut Vec<u8>, escape: impl Fn(&[u8], &mut Vec<u8>)) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Operator(operator, most) => match render::value(operator, record).cut(*most) {
                    Value::Absent => out.push(b'-'),
                    Value::Number(number) => {
                        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                    }
                    Value::Text(text) => escape(&text, out),
                },
            }
        }
    }
}

/// Where an operator ends: at the next `%` outside of parentheses.
fn end_of(text: &str) -> Option<usize> {
    let mut within = false;
    text.bytes().position(|byte| {
        match byte {
            b'(' => within = true,
            b')' => within = false,
            b'%' => return !within,
            _ => {}
        }
        false
    })
}

impl Piece {
    /// An operator, with its length limit: `REQ(X):10`.
    fn parse(text: &str) -> Result<Self, String> {
        let after = text.rfind(')').map_or(0, |at| at + 1);
        let (operator, most) = match text[after..].rfind(':') {
            None => (text, None),
            Some(colon) => {
                let length = &text[after + colon + 1..];
                let most = length.parse().map_err(|_| format!("`{length}` in `%{text}%` is no length"))?;
                (&text[..after + colon], Some(most))
            }
        };
        Ok(Self::Operator(Operator::parse(operator)?, most))
    }
}

/// The operator for a field of the request, as a format would write it.
pub(super) fn request_field(name: &str) -> Result<Field, String> {
    match Operator::parse(&format!("REQ({name})"))? {
        Operator::Request(field, _) => Ok(field),
        _ => Err(format!("`{name}` is no name of a header field")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_cannot_be_read_says_why() {
        for (text, want) in [
            ("a %DURATION", "closing `%`"),
            ("%REQ(X):many%", "no length"),
            ("%DURATIONS%", "did you mean %DURATION%"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        }
        let fields = BTreeMap::from([("a".to_owned(), "%NO%".to_owned())]);
        assert_eq!(Format::json(&fields).expect_err("unknown").0, "a");
    }

    #[test]
    fn operators_that_say_nothing_are_remarked() {
        let remark = |text| Format::text(text).expect(text).remark();
        assert_eq!(remark("%DURATION% %VIRTUAL_CLUSTER_NAME%"), None);
        let said = remark("%FILTER_STATE(a:PLAIN):5% %UPSTREAM_TLS_VERSION%").expect("two say nothing");
        assert!(said.starts_with("%FILTER_STATE(a:PLAIN)%, %UPSTREAM_TLS_VERSION% stay empty"), "{said}");
    }

    #[test]
    fn the_default_names_its_fields_in_order() {
        assert!(DEFAULT.is_sorted());
        assert_eq!(Format::envoy_gateway().remark(), None);
        let [request, response, trailers] = Format::envoy_gateway().reads();
        assert_eq!(request, ["user-agent", "x-forwarded-for", "x-request-id"]);
        assert_eq!(response, ["x-envoy-upstream-service-time"]);
        assert!(trailers.is_empty());
    }
}
