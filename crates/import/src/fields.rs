//! Objects whose fields are taken out one by one, so that what is left over can be told.

use serde_json::{Map, Value};

use crate::Import;

/// An object of the source.
pub(crate) struct Fields {
    /// Where it stands.
    place: String,
    map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn of(place: impl Into<String>, value: Value) -> Self {
        let map = match value {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Self { place: place.into(), map }
    }

    /// The same object, known by another place.
    pub(crate) fn at(self, place: &str) -> Self {
        Self { place: place.to_owned(), ..self }
    }

    /// Takes a field as it is; null is as good as absent.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// Takes a field as text: strings, numbers and truth values.
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text).filter(|text| !text.is_empty()),
            other @ (Value::Number(_) | Value::Bool(_)) => Some(other.to_string()),
            other @ (Value::Array(_) | Value::Object(_) | Value::Null) => {
                self.map.insert(key.to_owned(), other);
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, key: &str) -> bool {
        self.text(key).is_some_and(|text| text == "true")
    }

    pub(crate) fn number(&mut self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// Takes a list of texts.
    pub(crate) fn texts(&mut self, key: &str) -> Vec<String> {
        let values = match self.take(key) {
            Some(Value::Array(values)) => values,
            Some(one) => vec![one],
            None => Vec::new(),
        };
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        values.into_iter().map(text).collect()
    }

    pub(crate) fn object(&mut self, key: &str) -> Self {
        let place = format!("{}.{key}", self.place);
        Self::of(place, self.take(key).unwrap_or_default())
    }

    /// Forgets fields that mean nothing elsewhere.
    pub(crate) fn forget(&mut self, keys: &[&str]) {
        self.map.retain(|key, _| !keys.contains(&key.as_str()));
    }

    /// Notes what nobody took, unless it is empty or zero.
    pub(crate) fn finish(self, import: &mut Import) {
        for (key, value) in self.map {
            let is_nothing = match &value {
                Value::Null | Value::Bool(false) => true,
                Value::Bool(true) => false,
                Value::Number(number) => number.as_f64() == Some(0.0),
                Value::String(text) => text.is_empty(),
                Value::Array(values) => values.is_empty(),
                Value::Object(map) => map.is_empty(),
            };
            if !is_nothing {
                import.note(&self.place, format!("{key} is not carried over"));
            }
        }
    }
}

/// The objects of a document: those of a list, or the only one.
pub(crate) fn objects(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        other => vec![other],
    }
}
