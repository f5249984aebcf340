//! The types of bodies and answers, as tables.

use serde_json::Value;

use super::{prose, put, text};

/// Every type with its fields.
pub(super) fn render(html: &mut String, spec: &Value) {
    html.push_str("<h2 id=types>types</h2>");
    let schemas = spec.pointer("/components/schemas").and_then(Value::as_object);
    for (name, about) in schemas.into_iter().flatten() {
        put(
            html,
            format_args!(
                "<section id=\"type-{0}\"><h3><code>{0}</code> \
                 <a class=anchor href=\"#type-{0}\" title=\"link to this\">#</a></h3>",
                text(name)
            ),
        );
        put(html, format_args!("<p>{}</p>", prose(say(about, "description"))));
        if let Some(fields) = about.get("properties").and_then(Value::as_object) {
            render_fields(html, about, fields);
        } else {
            put(html, format_args!("<p>{}</p>", kind(about)));
        }
        html.push_str("</section>");
    }
}

fn render_fields(html: &mut String, about: &Value, fields: &serde_json::Map<String, Value>) {
    let required: Vec<&str> = about
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    html.push_str("<div class=wide><table><tr><th>field<th>type<th>what</tr>");
    for (name, field) in fields {
        let needed = if required.contains(&name.as_str()) {
            ""
        } else {
            " <span class=soft>optional</span>"
        };
        put(
            html,
            format_args!(
                "<tr><td><code>{}</code>{needed}<td>{}<td>{}</tr>",
                text(name),
                kind(field),
                prose(description(field))
            ),
        );
    }
    html.push_str("</table></div>");
}

fn say<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// What is said of a field: beside its type, or with the one form of it that is not null.
fn description(field: &Value) -> &str {
    let forms = field.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let all = std::iter::once(field).chain(forms).map(|form| say(form, "description"));
    all.into_iter().find(|text| !text.is_empty()).unwrap_or("")
}

/// A type in a few words, with links to those that have a name.
pub(super) fn kind(schema: &Value) -> String {
    if let Some(name) =
        schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next())
    {
        return format!("<a href=\"#type-{0}\">{0}</a>", text(name));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let all = values.iter().map(|value| format!("<code>{}</code>", text(&plain(value))));
        return all.collect::<Vec<_>>().join(", ");
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(forms) = schema.get(key).and_then(Value::as_array) {
            let forms = forms
                .iter()
                .filter(|form| form.get("type").and_then(Value::as_str) != Some("null"));
            return forms.map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    let mut words = base(schema);
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    ] {
        let range = match (schema.get(least), schema.get(most)) {
            (Some(least), Some(most)) => format!(", {} to {}{unit}", plain(least), plain(most)),
            (Some(least), None) => format!(", from {}{unit}", plain(least)),
            (None, Some(most)) => format!(", up to {}{unit}", plain(most)),
            (None, None) => continue,
        };
        words.push_str(&text(&range));
    }
    match schema.get("example") {
        Some(example) if !example.is_object() => {
            format!("{words}, such as <code>{}</code>", text(&plain(example)))
        }
        _ => words,
    }
}

fn base(schema: &Value) -> String {
    let names = match schema.get("type") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(name)) => vec![name.as_str()],
        _ => vec!["any"],
    };
    let name = names.iter().copied().find(|name| *name != "null").unwrap_or("any");
    match (name, schema.get("items"), schema.get("additionalProperties")) {
        ("array", Some(items), _) => format!("list of {}", kind(items)),
        ("object", _, Some(values)) if values.is_object() => format!("object of {}", kind(values)),
        (name, ..) => text(name),
    }
}

/// A value as people write it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
