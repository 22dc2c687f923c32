//! Conditions on an exchange in CEL, the language that Envoy's users write them in, over Envoy's attributes.
//!
//! An expression is read once, and looked at by the thread that writes: what it asks for is bounded by its own length
//! and by the size of a head. Which attributes and fields it asks for is known before, so workers keep no others.

use super::operator::Operator;
use super::record::Record;
use super::render::{self, Value};
use crate::reply::grpc_status;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators};
use cel::{Context, Env, Program};
use http::{HeaderName, StatusCode};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

/// An expression may have so many bytes.
const LONGEST: usize = 4096;
/// So many signs, those in texts included, and so many of them may open something that is closed later: the parser goes
/// down its stack for each.
const MOST_SIGNS: usize = 512;
const MOST_OPEN: usize = 48;
/// The stack that is enough for that, in bytes.
const STACK: usize = 32 << 20;
/// What is nested deeper is not looked at, by a thread whose stack is of the usual size.
const DEEPEST: usize = 32;

/// Envoy's attributes, each with the operator that says the same.
const ATTRIBUTES: [(&str, &str, &str); 30] = [
    ("connection", "id", "CONNECTION_ID"),
    ("connection", "requested_server_name", "REQUESTED_SERVER_NAME"),
    ("connection", "tls_version", "DOWNSTREAM_TLS_VERSION"),
    ("destination", "address", "DOWNSTREAM_LOCAL_ADDRESS"),
    ("destination", "port", "DOWNSTREAM_LOCAL_PORT"),
    ("request", "host", "REQ(:AUTHORITY)"),
    ("request", "id", "REQ(X-REQUEST-ID)"),
    ("request", "method", "REQ(:METHOD)"),
    ("request", "path", "PATH(WQ:PATH)"),
    ("request", "protocol", "PROTOCOL"),
    ("request", "query", "QUERY_PARAMS"),
    ("request", "referer", "REQ(REFERER)"),
    ("request", "scheme", "REQ(:SCHEME)"),
    ("request", "size", "BYTES_RECEIVED"),
    ("request", "url_path", "PATH(NQ:PATH)"),
    ("request", "useragent", "REQ(USER-AGENT)"),
    ("response", "code", "RESPONSE_CODE"),
    ("response", "code_details", "RESPONSE_CODE_DETAILS"),
    ("response", "grpc_status", "GRPC_STATUS_NUMBER"),
    ("response", "size", "BYTES_SENT"),
    ("source", "address", "DOWNSTREAM_REMOTE_ADDRESS"),
    ("source", "port", "DOWNSTREAM_REMOTE_PORT"),
    ("upstream", "address", "UPSTREAM_HOST"),
    ("upstream", "local_address", "UPSTREAM_LOCAL_ADDRESS"),
    ("upstream", "port", "UPSTREAM_REMOTE_PORT"),
    ("upstream", "request_attempt_count", "UPSTREAM_REQUEST_ATTEMPT_COUNT"),
    ("upstream", "transport_failure_reason", "UPSTREAM_TRANSPORT_FAILURE_REASON"),
    ("xds", "cluster_name", "UPSTREAM_CLUSTER"),
    ("xds", "filter_chain_name", "FILTER_CHAIN_NAME"),
    ("xds", "route_name", "ROUTE_NAME"),
];

/// Attributes that are fields by their names, each with the operator that says one.
const FIELDS: [(&str, &str, &str); 3] =
    [("request", "headers", "REQ"), ("response", "headers", "RESP"), ("response", "trailers", "TRAILER")];

/// What every expression may use: CEL's own functions.
static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// An expression that was read.
#[derive(Debug, Clone)]
pub struct Expression {
    text: Box<str>,
    program: Arc<Program>,
    asked: Arc<Asked>,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

/// What an expression asks of an exchange.
#[derive(Debug, Default)]
struct Asked {
    attributes: BTreeMap<(&'static str, &'static str), Operator>,
    /// Fields by their names, lower case.
    fields: BTreeMap<(&'static str, &'static str), BTreeMap<String, Operator>>,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// It is none, it is too long, or what it asks for is not known of an exchange.
    pub fn parse(text: &str) -> Result<Self, String> {
        check_size(text)?;
        let cannot = || format!("`{text}` cannot be read");
        std::thread::scope(|scope| {
            let reading =
                std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || Self::read(text));
            reading.map_err(|_| cannot())?.join().map_err(|_| cannot())?
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let program = Program::compile(text).map_err(|errors| {
            let said = errors.to_string();
            format!("`{text}` is no CEL expression: {}", said.lines().next().unwrap_or_default())
        })?;
        let mut looking = Looking::default();
        looking.look(&program.expression().expr)?;
        Ok(Self { text: text.into(), program: Arc::new(program), asked: Arc::new(looking.asked) })
    }

    /// Whether it holds. One that comes to no truth does not, as with Envoy: it asks for what is not there.
    pub fn holds(&self, record: &Record) -> bool {
        matches!(self.result(record), Some(cel::Value::Bool(true)))
    }

    /// What it comes to, as `%CEL(…)%` writes it.
    pub fn text(&self, record: &Record) -> Option<String> {
        Some(match self.result(record)? {
            cel::Value::String(text) => text.to_string(),
            cel::Value::Int(number) => number.to_string(),
            cel::Value::UInt(number) => number.to_string(),
            cel::Value::Float(number) => number.to_string(),
            cel::Value::Bool(truth) => truth.to_string(),
            _ => return None,
        })
    }

    fn result(&self, record: &Record) -> Option<cel::Value> {
        let mut context = Context::with_env(Arc::clone(&STANDARD));
        for (root, attributes) in self.asked.values(record) {
            context.add_variable_from_value(root, attributes);
        }
        // What a client sends must not end the log, should the interpreter ever not be up to it.
        let executing = AssertUnwindSafe(|| self.program.execute(&context).ok());
        catch_unwind(executing).ok().flatten()
    }

    /// The fields that it reads, in this order: of requests, of responses, of trailers.
    pub fn reads(&self) -> [Vec<HeaderName>; 3] {
        let Asked { attributes, fields } = &*self.asked;
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for operator in attributes.values().chain(fields.values().flat_map(BTreeMap::values)) {
            all.iter_mut().zip(operator.reads()).for_each(|(all, more)| all.extend(more));
        }
        all
    }
}

/// On the way through an expression.
#[derive(Default)]
struct Looking {
    asked: Asked,
    /// The names that macros gave.
    bound: Vec<String>,
    depth: usize,
    /// Whether there is a macro that walks a list already.
    walks: bool,
}

impl Asked {
    fn values(&self, record: &Record) -> HashMap<&'static str, HashMap<&'static str, cel::Value>> {
        let mut values: HashMap<_, HashMap<_, _>> = HashMap::new();
        for (&(root, name), operator) in &self.attributes {
            // A root whose attributes are all absent is there all the same.
            let attributes = values.entry(root).or_default();
            attributes.extend(attribute(root, name, operator, record).map(|value| (name, value)));
        }
        for (&(root, name), fields) in &self.fields {
            let found =
                fields.iter().filter_map(|(name, operator)| Some((name.clone(), value(operator, record)?)));
            let found: HashMap<String, cel::Value> = found.collect();
            values.entry(root).or_default().insert(name, found.into());
        }
        values
    }
}

impl Looking {
    /// Takes note of all attributes that an expression names.
    fn look(&mut self, expression: &Expr) -> Result<(), String> {
        if self.depth == DEEPEST {
            return Err(format!("the expression is nested deeper than {DEEPEST} levels"));
        }
        self.depth += 1;
        let seen = self.look_at(expression);
        self.depth -= 1;
        seen
    }

    fn look_at(&mut self, expression: &Expr) -> Result<(), String> {
        match expression {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) if self.bound.contains(name) => Ok(()),
            Expr::Ident(name) => {
                Err(format!("`{name}` alone is nothing that is known of an exchange; name an attribute"))
            }
            Expr::Select(SelectExpr { operand, field, .. }) => {
                match (&operand.expr, fields_of(&operand.expr)) {
                    (_, Some(fields)) => self.field(fields, field),
                    (Expr::Ident(root), None) if !self.bound.contains(root) => self.attribute(root, field),
                    (operand, None) => self.look(operand),
                }
            }
            Expr::Call(call) => self.look_at_call(call),
            Expr::List(list) => list.elements.iter().try_for_each(|one| self.look(&one.expr)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.look_at_entry(&entry.expr)),
            Expr::Struct(made) => made.entries.iter().try_for_each(|entry| self.look_at_entry(&entry.expr)),
            Expr::Comprehension(comprehension) => self.look_at_comprehension(comprehension),
        }
    }

    fn look_at_call(&mut self, call: &CallExpr) -> Result<(), String> {
        let CallExpr { func_name, target, args } = call;
        let named = match (func_name.as_str(), args.as_slice()) {
            (operators::INDEX, [of, name]) | (operators::IN, [name, of]) => {
                fields_of(&of.expr).map(|fields| (fields, &name.expr))
            }
            _ => None,
        };
        if let Some((fields, name)) = named {
            let Expr::Literal(LiteralValue::String(name)) = name else {
                return Err(
                    "fields are asked for by their names in quotes: request.headers['x-name']".to_owned()
                );
            };
            return self.field(fields, name.inner());
        }
        target.iter().map(AsRef::as_ref).chain(args).try_for_each(|one| self.look(&one.expr))
    }

    fn look_at_entry(&mut self, entry: &EntryExpr) -> Result<(), String> {
        match entry {
            EntryExpr::StructField(field) => self.look(&field.value.expr),
            EntryExpr::MapEntry(entry) => {
                self.look(&entry.key.expr)?;
                self.look(&entry.value.expr)
            }
        }
    }

    fn look_at_comprehension(&mut self, comprehension: &ComprehensionExpr) -> Result<(), String> {
        let ComprehensionExpr {
            iter_range,
            iter_var,
            iter_var2,
            accu_var,
            accu_init,
            loop_cond,
            loop_step,
            result,
        } = comprehension;
        // Each walk multiplies the work, and what it makes, by the length of its list.
        if std::mem::replace(&mut self.walks, true) {
            return Err("an expression may have one of all(), exists(), map() and filter()".to_owned());
        }
        self.look(&iter_range.expr)?;
        self.look(&accu_init.expr)?;
        let outer = self.bound.len();
        self.bound.extend([iter_var, accu_var].into_iter().chain(iter_var2).cloned());
        let inner = [loop_cond, loop_step, result].into_iter().try_for_each(|one| self.look(&one.expr));
        self.bound.truncate(outer);
        inner
    }

    fn attribute(&mut self, root: &str, name: &str) -> Result<(), String> {
        if let Some((root, name, _)) = FIELDS.iter().find(|(r, n, _)| *r == root && *n == name) {
            return Err(format!("{root}.{name} are asked for by their names: {root}.{name}['x-name']"));
        }
        let known = ATTRIBUTES.iter().find(|(r, n, _)| *r == root && *n == name);
        let (root, name, operator) = known.ok_or_else(|| {
            let names: Vec<_> =
                ATTRIBUTES.iter().filter(|(r, ..)| *r == root).map(|(_, name, _)| *name).collect();
            match names.is_empty() {
                true => format!("`{root}` is nothing that is known of an exchange"),
                false => format!("`{root}.{name}` is not known of an exchange, but {}", names.join(", ")),
            }
        })?;
        self.asked.attributes.insert((root, name), Operator::parse(operator)?);
        Ok(())
    }

    fn field(&mut self, fields: &'static (&str, &str, &str), name: &str) -> Result<(), String> {
        let (root, list, operator) = fields;
        let operator = Operator::parse(&format!("{operator}({name})"))?;
        self.asked.fields.entry((root, list)).or_default().insert(name.to_owned(), operator);
        Ok(())
    }
}

/// What is too large to be read safely, whoever wrote it.
fn check_size(text: &str) -> Result<(), String> {
    let signs = text.bytes().filter(u8::is_ascii_punctuation).count();
    let open = text.bytes().filter(|byte| b"([{?".contains(byte)).count();
    for (size, most, what) in [
        (text.len(), LONGEST, "bytes"),
        (signs, MOST_SIGNS, "signs"),
        (open, MOST_OPEN, "parentheses, brackets and conditions"),
    ] {
        if size > most {
            return Err(format!("the expression has {size} {what}; {most} are the most"));
        }
    }
    Ok(())
}

/// Which fields this is, if it is `request.headers` or one of its kin.
fn fields_of(expression: &Expr) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let Expr::Select(SelectExpr { operand, field, .. }) = expression else { return None };
    let Expr::Ident(root) = &operand.expr else { return None };
    FIELDS.iter().find(|(r, name, _)| r == root && name == field)
}

/// An attribute; some are there where the operator says nothing, or are not where it says zero.
fn attribute(root: &str, name: &str, operator: &Operator, record: &Record) -> Option<cel::Value> {
    let status = StatusCode::from_u16(record.status).ok();
    match (root, name) {
        // A client that went away got none.
        ("response", "code") if status.is_none() => None,
        // That of a response that is no gRPC's is made of its status.
        ("response", "grpc_status") => {
            let status = record.grpc_status().or_else(|| status.map(|status| grpc_status(status).into()));
            status.map(|status| i64::from(status).into())
        }
        ("request", "query") => record.path.as_ref().map(|path| path.query().unwrap_or_default().into()),
        // Lines of logs have underscores in it.
        ("upstream", "transport_failure_reason") => {
            let failure = record.upstream.failure.as_deref().unwrap_or_default();
            record.upstream.endpoint.as_ref().map(|_| failure.replace('_', " ").into())
        }
        _ => value(operator, record),
    }
}

fn value(operator: &Operator, record: &Record) -> Option<cel::Value> {
    match render::value(operator, record) {
        Value::Absent => None,
        Value::Number(number) => Some(i64::try_from(number).unwrap_or(i64::MAX).into()),
        Value::Text(text) => Some(String::from_utf8_lossy(&text).into_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::uri::PathAndQuery;
    use http::{HeaderValue, Method, Version};
    use std::time::SystemTime;

    fn record() -> Record {
        let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut record = Record::new(SystemTime::UNIX_EPOCH);
        (record.method, record.version) = (Some(Method::POST), Some(Version::HTTP_11));
        record.path = Some(PathAndQuery::from_static("/api/v1?q=1"));
        record.authority = Some(HeaderValue::from_static("app.test"));
        record.request = vec![field("x-a", "1"), field("user-agent", "probe")];
        record.response = vec![field("content-type", "text/plain")];
        (record.status, record.received) = (503, 2_000);
        record.client = Some(([203, 0, 113, 9], 4000).into());
        record
    }

    #[test]
    fn an_expression_is_asked_of_an_exchange() {
        for (text, holds) in [
            ("response.code >= 400", true),
            ("response.code >= 400 && response.code < 500", false),
            ("request.method == 'GET' || request.url_path.startsWith('/api/')", true),
            ("request.path == '/api/v1?q=1' && request.query == 'q=1'", true),
            ("'x-a' in request.headers && !('x-b' in request.headers)", true),
            ("request.headers['x-a'] == '1'", true),
            ("request.headers['x-b'] == '1'", false),
            ("!(request.headers['x-b'] == '1')", false),
            ("has(request.headers.host) && request.host.endsWith('.test')", true),
            ("response.headers['content-type'].contains('plain')", true),
            ("request.useragent.matches('^pro.e$')", true),
            ("['GET', 'POST'].exists(method, method == request.method)", true),
            ("request.size > 1000 && source.port == 4000", true),
            ("upstream.address == ''", false),
            ("response.code", false),
            (&format!("{}true{}", "!(".repeat(24), ")".repeat(24)), true),
            (&format!("request.size > 1{}", " + 1".repeat(28)), true),
            ("size(request.method) / 0 == 1", false),
        ] {
            let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(expression.holds(&record()), holds, "{text}");
        }
    }

    proptest::proptest! {
        /// Pieces of the language in any order, and what is no language at all.
        #[test]
        fn whatever_is_written_is_refused_or_can_be_asked(
            text in "(request\\.(path|size|headers)|response|'x-a'|[a-z]|[0-9]|[-+*/%.,:?!<>=&|()\\[\\]{} \"]| in |\\PC){0,60}",
        ) {
            if let Ok(expression) = Expression::parse(&text) {
                expression.holds(&record());
            }
        }
    }

    #[test]
    fn what_it_reads_is_known_before() {
        let text = "'x-a' in request.headers && response.trailers['x-sum'] == request.useragent";
        let [request, response, trailers] = Expression::parse(text).expect("it is one").reads();
        assert_eq!(
            (request, response),
            (vec![http::header::USER_AGENT, HeaderName::from_static("x-a")], vec![])
        );
        assert_eq!(trailers, ["x-sum"]);
    }

    #[test]
    fn what_cannot_be_asked_says_why() {
        for (text, want) in [
            ("response.code >=", "no CEL expression"),
            ("request.time > 5", "`request.time` is not known of an exchange, but host, id"),
            ("metadata.filter == ''", "`metadata` is nothing that is known"),
            ("request == response", "name an attribute"),
            ("request.headers.exists(h, h == 'x')", "by their names"),
            ("request.headers[request.method] == 'x'", "by their names in quotes"),
            ("['a'].map(a, a + a).map(a, a + a).size() > 0", "one of all()"),
            ("[1, 2].all(a, [1, 2].all(b, a == b))", "one of all()"),
            (&"a".repeat(5_000), "5000 bytes; 4096 are the most"),
            (&"(".repeat(49), "49 parentheses"),
            (&"(".repeat(48), "no CEL expression"),
            (&format!("request.size > 1{}", " + 1".repeat(500)), "nested deeper than 32 levels"),
            (&format!("request.size > 1{}", " + 1".repeat(511)), "513 signs"),
            (&format!("{}true{}", "!(".repeat(48), ")".repeat(48)), "nested deeper"),
        ] {
            let error = Expression::parse(text).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
