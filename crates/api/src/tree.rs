//! TOML, YAML and JSON as one tree whose nodes know where they stand in the text.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor};

use crate::job_file::Mistake;

/// The notation of a job file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The canonical one.
    Toml,
    /// Accepted.
    Yaml,
    /// Accepted; also the notation of REST.
    Json,
}

impl Format {
    /// The notation that a file's name suggests: TOML unless it ends in `.yaml`, `.yml` or `.json`.
    #[must_use]
    pub fn of_file(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).as_deref()
        {
            Some("yaml" | "yml") => Self::Yaml,
            Some("json") => Self::Json,
            _ => Self::Toml,
        }
    }
}

/// Line and column in a text, from 1; 0 if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Something that no field takes, such as a TOML date.
    Other(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) node: Node,
}

impl Value {
    /// The kind, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

impl Node {
    /// Where `pointer` stands, or else what is nearest above it.
    pub(crate) fn locate(&self, pointer: &str) -> Place {
        let mut place = self.place;
        let mut node = self;
        for segment in pointer.split('/').skip(1) {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            let next = match &node.value {
                Value::Table(entries) => entries
                    .iter()
                    .find(|entry| entry.key == segment)
                    .map(|entry| (entry.key_place, &entry.node)),
                Value::List(items) => segment
                    .parse()
                    .ok()
                    .and_then(|index: usize| items.get(index))
                    .map(|item| (item.place, item)),
                Value::Null
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Float(_)
                | Value::Text(_)
                | Value::Other(_) => None,
            };
            let Some((at, below)) = next else { break };
            // A scalar's own place is better than its key's; a table's is where its key stands.
            let scalar = !matches!(below.value, Value::Table(_) | Value::List(_));
            place = if scalar && below.place.line > 0 { below.place } else { at };
            node = below;
        }
        place
    }
}

/// Reads a text into a tree.
pub(crate) fn parse(text: &str, format: Format) -> Result<Node, Vec<Mistake>> {
    match format {
        Format::Toml => parse_toml(text),
        Format::Yaml => parse_yaml(text),
        Format::Json => parse_json(text),
    }
}

fn syntax(place: Place, message: impl Into<String>) -> Mistake {
    let some = |number: u32| (number > 0).then_some(number);
    let mistake = Mistake::new("", message, "");
    Mistake { line: some(place.line), column: some(place.column), ..mistake }
}

fn parse_toml(text: &str) -> Result<Node, Vec<Mistake>> {
    use toml::de::DeTable;
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let place =
            |error: &toml::de::Error| lines.place(error.span().map_or(0, |span| span.start));
        return Err(errors
            .iter()
            .take(20)
            .map(|error| syntax(place(error), error.message()))
            .collect());
    }
    let place = Place { line: 1, column: 1 };
    Ok(Node { place, value: from_toml_table(table.into_inner(), &lines) })
}

fn from_toml_table(table: toml::de::DeTable<'_>, lines: &Lines<'_>) -> Value {
    let entry = |(key, value): (toml::Spanned<toml::de::DeString<'_>>, _)| Entry {
        key_place: lines.place(key.span().start),
        key: key.into_inner().into_owned(),
        node: from_toml(value, lines),
    };
    let mut entries: Vec<Entry> = table.into_iter().map(entry).collect();
    entries.sort_by_key(|entry| (entry.key_place.line, entry.key_place.column));
    Value::Table(entries)
}

fn from_toml(value: toml::Spanned<toml::de::DeValue<'_>>, lines: &Lines<'_>) -> Node {
    use toml::de::DeValue;
    let place = lines.place(value.span().start);
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Other("a number that is too large"), Value::Int),
        DeValue::Float(float) => {
            float.as_str().parse().map_or(Value::Other("a number"), Value::Float)
        }
        DeValue::Boolean(truth) => Value::Bool(truth),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(array) => {
            Value::List(array.into_iter().map(|item| from_toml(item, lines)).collect())
        }
        DeValue::Table(table) => from_toml_table(table, lines),
    };
    Node { place, value }
}

fn parse_yaml(text: &str) -> Result<Node, Vec<Mistake>> {
    serde_saphyr::from_str::<Node>(text).map_err(|error| {
        let place = error.location().map_or_else(Place::default, |at| place_of(&at));
        let message = error.without_snippet().to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        vec![syntax(place, message)]
    })
}

fn place_of(location: &serde_saphyr::Location) -> Place {
    let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: short(location.line()), column: short(location.column()) }
}

/// JSON proper decides whether the text is JSON; the YAML reader, whose language includes JSON, then says where things stand.
fn parse_json(text: &str) -> Result<Node, Vec<Mistake>> {
    let plain = from_json_slice(text.as_bytes())?;
    Ok(serde_saphyr::from_str::<Node>(text).unwrap_or(plain))
}

/// Reads JSON without places, which is what REST needs.
pub(crate) fn from_json_slice(bytes: &[u8]) -> Result<Node, Vec<Mistake>> {
    serde_json::from_slice::<Plain>(bytes).map(|plain| plain.0).map_err(|error| {
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let place = Place { line: short(error.line()), column: short(error.column()) };
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        vec![syntax(place, message)]
    })
}

/// A node read by any deserializer, without places.
struct Plain(Node);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrap = |value| Self(Node { place: Place::default(), value });
        deserializer.deserialize_any(TreeVisitor::<Plain>::default()).map(wrap)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<Bare>::deserialize(deserializer)?;
        Ok(Self { place: place_of(&spanned.referenced), value: spanned.value.0 })
    }
}

/// The value below a [`Node`] in YAML.
struct Bare(Value);

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor::<Node>::default()).map(Self)
    }
}

/// How deep lists and tables are looked into is limited by the readers themselves.
struct TreeVisitor<N>(std::marker::PhantomData<N>);

impl<N> Default for TreeVisitor<N> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl From<Plain> for Node {
    fn from(plain: Plain) -> Self {
        plain.0
    }
}

impl<'de, N: Deserialize<'de> + Into<Node>> Visitor<'de> for TreeVisitor<N> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Other("a number that is too large"), Value::Int))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<N>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut table: Vec<Entry> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom(format!("the key \"{key}\" appears twice")));
            }
            let node: Node = entries.next_value::<N>()?.into();
            table.push(Entry { key, key_place: node.place, node });
        }
        Ok(Value::Table(table))
    }
}

/// Finds line and column of a byte offset.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let after =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start =
            line.checked_sub(1).and_then(|line| self.starts.get(line)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place { line: short(line), column: short(column) }
    }
}
