//! The description of the interface as pages for people: plain HTML, no scripts, nothing from elsewhere.

mod types;

use std::collections::BTreeMap;
use std::fmt::Write;

use rota_api::ErrorCode;
use serde_json::Value;
use utoipa::openapi::OpenApi;

use super::access::{Declared, Permission};

const STYLE: &str = include_str!("docs/style.css");
/// The groups of operations that come first, in this order.
const FIRST: [&str; 7] = ["jobs", "tasks", "queues", "nodes", "keys", "cluster", "server"];
/// The server of the examples.
const SERVER: &str = "http://127.0.0.1:7600";

/// The page with every route and type.
pub(super) fn render(openapi: &OpenApi, table: &[Declared]) -> String {
    let spec = serde_json::to_value(openapi).unwrap_or_default();
    let groups = grouped(&spec, table);
    let mut html = head("rota: REST interface");
    render_index(&mut html, &groups);
    let version = spec.pointer("/info/version").and_then(Value::as_str).unwrap_or("");
    let about = spec.pointer("/info/description").and_then(Value::as_str).unwrap_or("");
    put(
        &mut html,
        format_args!(
            "<main><h1>rota REST interface</h1><p>Version {}. {}</p>\
             <p>The same for programs: <a href=\"/v1/openapi.json\">/v1/openapi.json</a> (OpenAPI 3.1).</p>",
            text(version),
            prose(about)
        ),
    );
    for (group, operations) in &groups {
        put(&mut html, format_args!("<h2 id=\"{0}\">{0}</h2>", text(group)));
        for operation in operations {
            render_operation(&mut html, operation);
        }
    }
    types::render(&mut html, &spec);
    render_errors(&mut html);
    html.push_str("</main></body></html>");
    html
}

/// The page of one error code.
pub(super) fn render_code(code: ErrorCode) -> String {
    let mut html = head(code.name());
    put(
        &mut html,
        format_args!("<main><h1>{}</h1><p>{}</p>", text(code.name()), prose(code.title())),
    );
    for paragraph in code.explanation().split("\n\n") {
        put(&mut html, format_args!("<p>{}</p>", prose(paragraph)));
    }
    put(&mut html, format_args!("<p><b>What to do:</b> {}</p>", prose(code.hint())));
    let status = code.status().map_or_else(
        || "Only on the command line".to_owned(),
        |status| format!("HTTP status {status}"),
    );
    put(&mut html, format_args!("<p>{status}, exit code {}.</p>", code.exit_code()));
    html.push_str("<p><a href=\"/docs#errors\">all codes</a></p></main></body></html>");
    html
}

struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    about: &'a Value,
    permission: Option<Permission>,
}

impl Operation<'_> {
    fn say(&self, key: &str) -> &str {
        self.about.get(key).and_then(Value::as_str).unwrap_or("")
    }
}

/// The operations of the description below their tags.
fn grouped<'a>(spec: &'a Value, table: &[Declared]) -> Vec<(&'a str, Vec<Operation<'a>>)> {
    let mut groups: BTreeMap<&str, Vec<Operation<'_>>> = BTreeMap::new();
    let paths = spec.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        for (method, about) in item.as_object().into_iter().flatten() {
            let tag = about.pointer("/tags/0").and_then(Value::as_str).unwrap_or("other");
            let declared = table.iter().find(|route| route.path == *path && route.method == method);
            let permission = declared.map(|route| route.permission);
            groups.entry(tag).or_default().push(Operation { method, path, about, permission });
        }
    }
    let place = |tag: &str| FIRST.iter().position(|first| *first == tag).unwrap_or(FIRST.len());
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(tag, _)| place(tag));
    groups
}

/// Every route with a link to it: on a wide screen beside the text, on a narrow one above it.
fn render_index(html: &mut String, groups: &[(&str, Vec<Operation<'_>>)]) {
    html.push_str("<nav><b>rota</b>");
    for (group, operations) in groups {
        put(
            html,
            format_args!("<details open><summary><a href=\"#{0}\">{0}</a></summary>", text(group)),
        );
        for operation in operations {
            put(
                html,
                format_args!(
                    "<a href=\"#{}\"><span class=\"m {1}\">{1}</span><code>{2}</code></a>",
                    text(operation.say("operationId")),
                    text(operation.method),
                    text(operation.path)
                ),
            );
        }
        html.push_str("</details>");
    }
    html.push_str("<a href=\"#types\">types</a><a href=\"#errors\">errors</a></nav>");
}

fn render_operation(html: &mut String, operation: &Operation<'_>) {
    let Operation { method, path, about, permission } = operation;
    put(
        html,
        format_args!(
            "<section id=\"{0}\"><h3><span class=\"m {1}\">{1}</span> <code>{2}</code> \
             <a class=anchor href=\"#{0}\" title=\"link to this\">#</a></h3><p>{3}</p>",
            text(operation.say("operationId")),
            text(method),
            text(path),
            prose(operation.say("summary"))
        ),
    );
    if !operation.say("description").is_empty() {
        put(html, format_args!("<p>{}</p>", prose(operation.say("description"))));
    }
    put(
        html,
        format_args!(
            "<p class=soft>Permission: {}</p>",
            text(permission.map_or("unknown", Permission::about))
        ),
    );
    render_parameters(html, about);
    render_body(html, about);
    put(html, format_args!("<pre>{}</pre>", text(&example(operation))));
    render_answers(html, about);
    html.push_str("</section>");
}

fn render_parameters(html: &mut String, about: &Value) {
    let parameters = about.get("parameters").and_then(Value::as_array);
    let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) else { return };
    html.push_str("<div class=wide><table><tr><th>parameter<th>in<th>type<th>what</tr>");
    for parameter in parameters {
        let say = |key: &str| parameter.get(key).and_then(Value::as_str).unwrap_or("");
        let schema = parameter.get("schema").unwrap_or(&Value::Null);
        put(
            html,
            format_args!(
                "<tr><td><code>{}</code><td>{}<td>{}<td>{}</tr>",
                text(say("name")),
                text(say("in")),
                types::kind(schema),
                prose(say("description"))
            ),
        );
    }
    html.push_str("</table></div>");
}

fn render_body(html: &mut String, about: &Value) {
    let Some(body) = about.get("requestBody") else { return };
    let required = body.get("required").and_then(Value::as_bool).unwrap_or(false);
    html.push_str(if required { "<p>Body:" } else { "<p>Body, may be left out:" });
    let contents = body.get("content").and_then(Value::as_object);
    for (place, (kind, content)) in contents.into_iter().flatten().enumerate() {
        let schema = content.get("schema").unwrap_or(&Value::Null);
        html.push_str(if place > 0 { " or " } else { " " });
        put(html, format_args!("{} as <code>{}</code>", types::kind(schema), text(kind)));
    }
    html.push_str("</p>");
}

fn render_answers(html: &mut String, about: &Value) {
    html.push_str("<div class=wide><table><tr><th>status<th>answer<th>body</tr>");
    for (status, answer) in about.get("responses").and_then(Value::as_object).into_iter().flatten()
    {
        let what = answer.get("description").and_then(Value::as_str).unwrap_or("");
        let status = if status == "default" { "else" } else { status };
        put(html, format_args!("<tr><td>{}<td>{}<td>", text(status), prose(what)));
        for (kind, content) in
            answer.get("content").and_then(Value::as_object).into_iter().flatten()
        {
            let schema = content.get("schema").unwrap_or(&Value::Null);
            put(html, format_args!("{} <code>{}</code> ", types::kind(schema), text(kind)));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table></div>");
}

/// The request as a command that can be typed in.
fn example(operation: &Operation<'_>) -> String {
    let Operation { method, path, .. } = operation;
    let id = if path.starts_with("/v1/tasks") { "17.3" } else { "17" };
    let name = if path.starts_with("/v1/nodes") { "node-a" } else { "batch" };
    let path = path.replace("{id}", id).replace("{name}", name).replace("{code}", "invalid-job");
    let path = path.replace("{key}", "config/web/port").replace("{lock}", "nightly-report");
    let mut line = match *method {
        "get" => "curl -sS".to_owned(),
        other => format!("curl -sS -X {}", other.to_uppercase()),
    };
    if ["/v1/events", "/v1/watch"].contains(&path.as_str()) {
        line.push_str(" -N");
    }
    if let Some(body) = body_example(operation.say("operationId")) {
        write!(line, " -H 'Content-Type: application/json' \\\n  -d '{body}' \\\n ").ok();
    }
    if operation.say("operationId") == "putKey" {
        line.push_str(" --data-binary 8080");
    }
    let query = match operation.say("operationId") {
        "listKeys" | "deleteKeys" | "watchKeys" => "?prefix=config/",
        "releaseLock" => "?session=17",
        "listJobs" => "?state=queued,running&limit=10",
        "listTasks" => "?state=failed",
        "followEvents" => "?types=job,task",
        "taskLogs" => "?tail=4096",
        "jobLogs" => "?follow=true",
        _ => "",
    };
    let quote = if query.is_empty() { "" } else { "'" };
    format!("{line} {quote}{SERVER}{path}{query}{quote}")
}

/// A body that the operation takes.
fn body_example(operation: &str) -> Option<&'static str> {
    match operation {
        "submitJobs" => Some(
            r#"{"job":{"name":"frames"},"task":[{"command":["./frame.sh","{index}"],"array":"1-100"}]}"#,
        ),
        "validateJob" => Some(r#"{"task":[{"command":["make","all"],"cpus":4,"timeout":"1h"}]}"#),
        "cancelJob" => Some(r#"{"tasks":"0-9","grace":"30s","reason":"wrong input"}"#),
        "retryJob" => Some(r#"{"all":true}"#),
        "putQueue" => Some(r#"{"discipline":"priority","aging":"5m","placement":"best_fit"}"#),
        "changeKeys" => Some(
            r#"{"conditions":[{"absent":{"key":"a"}}],"changes":[{"put":{"key":"a","value":"aGVsbG8="}},{"delete":{"key":"b"}}]}"#,
        ),
        "openSession" => Some(r#"{"ttl":"30s"}"#),
        "acquireLock" => Some(r#"{"session":17,"wait":"10s","value":"host-a"}"#),
        "changeQueue" => Some(r#"{"running_max":8}"#),
        _ => None,
    }
}

fn render_errors(html: &mut String) {
    html.push_str("<h2 id=errors>errors</h2><p>Every answer of 400 and above is a <a href=\"#type-Problem\">Problem</a>.</p>");
    html.push_str("<div class=wide><table><tr><th>code<th>status<th>meaning<th>what to do</tr>");
    for code in ErrorCode::ALL {
        let Some(status) = code.status() else { continue };
        put(
            html,
            format_args!(
                "<tr><td><a href=\"/problems/{0}\"><code>{0}</code></a><td>{1}<td>{2}<td>{3}</tr>",
                text(code.name()),
                status,
                prose(code.title()),
                prose(code.hint())
            ),
        );
    }
    html.push_str("</table></div>");
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

/// Text that can't become markup, but for what stands between backticks, which becomes code.
fn prose(plain: &str) -> String {
    let mut html = String::new();
    for (place, part) in plain.split('`').enumerate() {
        if place % 2 == 1 {
            put(&mut html, format_args!("<code>{}</code>", text(part)));
        } else {
            html.push_str(&text(part));
        }
    }
    html
}

/// Text that can't become markup.
fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of this attribute on the page.
    fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
        let parts = html.split(attribute).skip(1);
        parts.map(|part| part.split(['"', '>', ' ']).next().unwrap_or_default()).collect()
    }

    #[test]
    fn the_page_tells_the_permission_of_every_route_and_its_links_lead_somewhere() {
        let (_, openapi, table) = super::super::routes().build();
        let html = render(&openapi, &table);
        assert_eq!(html.matches("<p class=soft>Permission: ").count(), table.len());
        assert!(!html.contains("Permission: unknown"));
        let ids = [values(&html, " id=\""), values(&html, " id=")].concat();
        for link in values(&html, "href=\"#") {
            assert!(ids.contains(&link), "nothing has the id {link:?}");
        }
        for route in &table {
            assert!(html.contains(&format!("<code>{}</code>", text(&route.path))), "{route:?}");
        }
    }

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(
            prose("a `<b>` \"c\" & <d>"),
            "a <code>&lt;b&gt;</code> &quot;c&quot; &amp; &lt;d&gt;"
        );
    }
}
