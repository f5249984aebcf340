//! The description of the interface as pages for people: plain HTML, no scripts, nothing from elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write;

use rota_api::ErrorCode;
use serde_json::Value;
use utoipa::openapi::OpenApi;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--key:#0a6}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{border-bottom:1px solid var(--line);margin-top:2.5rem}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
summary{cursor:pointer}code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:var(--soft);padding:.7rem;border-radius:6px;overflow:auto}
.m{display:inline-block;width:4.2rem;font-weight:600;color:var(--key);text-transform:uppercase}
table{border-collapse:collapse;margin:.5rem 0}td,th{border:1px solid var(--line);padding:.2rem .6rem;text-align:left;vertical-align:top}
nav a{margin-right:1rem}";

/// The page with every route and type.
pub(super) fn render(openapi: &OpenApi) -> String {
    let spec = serde_json::to_value(openapi).unwrap_or_default();
    let mut html = head("rota: REST interface");
    let version = spec.pointer("/info/version").and_then(Value::as_str).unwrap_or("");
    let about = spec.pointer("/info/description").and_then(Value::as_str).unwrap_or("");
    put(
        &mut html,
        format_args!(
            "<h1>rota REST interface</h1><p>Version {}. {}</p>",
            text(version),
            text(about)
        ),
    );
    let by_tag = by_tag(&spec);
    html.push_str("<nav>");
    for tag in by_tag.keys() {
        put(&mut html, format_args!("<a href=\"#{0}\">{0}</a>", text(tag)));
    }
    html.push_str("<a href=\"#types\">types</a><a href=\"#errors\">errors</a><a href=\"/v1/openapi.json\">openapi.json</a></nav>");
    for (tag, operations) in &by_tag {
        put(&mut html, format_args!("<h2 id=\"{0}\">{0}</h2>", text(tag)));
        for operation in operations {
            render_operation(&mut html, operation);
        }
    }
    render_types(&mut html, &spec);
    render_errors(&mut html);
    html.push_str("</body></html>");
    html
}

/// The page of one error code.
pub(super) fn render_code(code: ErrorCode) -> String {
    let mut html = head(code.name());
    put(&mut html, format_args!("<h1>{}</h1><p>{}</p>", text(code.name()), text(code.title())));
    for paragraph in code.explanation().split("\n\n") {
        put(&mut html, format_args!("<p>{}</p>", text(paragraph)));
    }
    put(&mut html, format_args!("<p><b>What to do:</b> {}</p>", text(code.hint())));
    if let Some(status) = code.status() {
        put(
            &mut html,
            format_args!("<p>HTTP status {status}, exit code {}.</p>", code.exit_code()),
        );
    }
    html.push_str("<p><a href=\"/docs#errors\">all codes</a></p></body></html>");
    html
}

struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    about: &'a Value,
}

/// The operations of the description below their tags.
fn by_tag(spec: &Value) -> BTreeMap<&str, Vec<Operation<'_>>> {
    let mut tags: BTreeMap<&str, Vec<Operation<'_>>> = BTreeMap::new();
    let paths = spec.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        for (method, about) in item.as_object().into_iter().flatten() {
            let tag = about.pointer("/tags/0").and_then(Value::as_str).unwrap_or("other");
            tags.entry(tag).or_default().push(Operation { method, path, about });
        }
    }
    tags
}

fn render_operation(html: &mut String, operation: &Operation<'_>) {
    let Operation { method, path, about } = operation;
    let say = |key: &str| about.get(key).and_then(Value::as_str).unwrap_or("");
    put(
        html,
        format_args!(
            "<details><summary><span class=m>{}</span><code>{}</code> {}</summary>",
            text(method),
            text(path),
            text(say("summary"))
        ),
    );
    if !say("description").is_empty() {
        put(html, format_args!("<p>{}</p>", text(say("description"))));
    }
    let parameters = about.get("parameters").and_then(Value::as_array);
    if let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) {
        html.push_str("<table><tr><th>parameter<th>in<th>what</tr>");
        for parameter in parameters {
            let say = |key: &str| parameter.get(key).and_then(Value::as_str).unwrap_or("");
            put(
                html,
                format_args!(
                    "<tr><td><code>{}</code><td>{}<td>{}</tr>",
                    text(say("name")),
                    text(say("in")),
                    text(say("description"))
                ),
            );
        }
        html.push_str("</table>");
    }
    let body = about.pointer("/requestBody/content").and_then(Value::as_object);
    for (kind, content) in body.into_iter().flatten() {
        put(
            html,
            format_args!(
                "<p>Body: <code>{}</code> {}</p>",
                text(kind),
                schema(content.get("schema"))
            ),
        );
    }
    html.push_str("<table><tr><th>status<th>answer</tr>");
    for (status, answer) in about.get("responses").and_then(Value::as_object).into_iter().flatten()
    {
        let what = answer.get("description").and_then(Value::as_str).unwrap_or("");
        put(html, format_args!("<tr><td>{}<td>{}", text(status), text(what)));
        for content in answer.get("content").and_then(Value::as_object).into_iter().flatten() {
            put(
                html,
                format_args!(
                    " <code>{}</code> {}",
                    text(content.0),
                    schema(content.1.get("schema"))
                ),
            );
        }
        html.push_str("</tr>");
    }
    html.push_str("</table></details>");
}

fn render_types(html: &mut String, spec: &Value) {
    html.push_str("<h2 id=types>types</h2>");
    let schemas = spec.pointer("/components/schemas").and_then(Value::as_object);
    for (name, about) in schemas.into_iter().flatten() {
        let what = about.get("description").and_then(Value::as_str).unwrap_or("");
        let json = serde_json::to_string_pretty(about).unwrap_or_default();
        put(
            html,
            format_args!(
                "<details id=\"type-{0}\"><summary><code>{0}</code> {1}</summary><pre>{2}</pre></details>",
                text(name),
                text(what),
                text(&json)
            ),
        );
    }
}

fn render_errors(html: &mut String) {
    html.push_str("<h2 id=errors>errors</h2><table><tr><th>code<th>status<th>meaning</tr>");
    for code in ErrorCode::ALL.iter().filter(|code| code.status().is_some()) {
        put(
            html,
            format_args!(
                "<tr><td><a href=\"/problems/{0}\"><code>{0}</code></a><td>{1}<td>{2}</tr>",
                text(code.name()),
                code.status().unwrap_or(0),
                text(code.title())
            ),
        );
    }
    html.push_str("</table>");
}

/// A link to a type, or its kind.
fn schema(schema: Option<&Value>) -> String {
    let Some(schema) = schema else { return String::new() };
    match schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
        Some(name) => format!("<a href=\"#type-{0}\">{0}</a>", text(name)),
        None => text(schema.get("type").and_then(Value::as_str).unwrap_or("")),
    }
}

fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style></head><body>",
        text(title)
    )
}

fn put(html: &mut String, part: std::fmt::Arguments<'_>) {
    html.write_fmt(part).expect("writing to a String can't fail");
}

/// Text that can't become markup.
fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
