//! docs/reference/limits.md, made from the constants.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

/// Where the limits are.
const SOURCE: &str = "crates/types/src/limits.rs";
/// Where they are shown.
pub(crate) const PAGE: &str = "docs/reference/limits.md";

const HEAD: &str = "\
# Limits

Made from the constants by `cargo xtask limits`; CI fails when this page is out of date. Whatever goes over a limit is refused with an
error that names the field, the limit and what to do; nothing is cut short silently, except output and messages, which say so.

| Limit | Value | Constant |
|---|---|---|
";

/// Writes the page.
pub(crate) fn write() -> Result<()> {
    fs::write(PAGE, page()?).context(PAGE)?;
    println!("wrote {PAGE}");
    Ok(())
}

/// The page as it should be.
pub(crate) fn page() -> Result<String> {
    let source = fs::read_to_string(SOURCE).context(SOURCE)?;
    let mut page = HEAD.to_owned();
    let mut about: Vec<&str> = Vec::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            about.push(text);
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            let (name, value) = rest.split_once(": ").context("a constant has a type")?;
            let value = value.split_once(" = ").context("a constant has a value")?.1;
            let value = readable(value.trim_end_matches(';'));
            writeln!(page, "| {} | {value} | `{name}` |", about.join(" "))?;
            about.clear();
        }
    }
    Ok(page)
}

/// A constant's expression as people write such values.
fn readable(expression: &str) -> String {
    let product = |text: &str| {
        let factors = text.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>());
        factors.product::<Result<u64, _>>().ok()
    };
    let inside =
        |prefix: &str| expression.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(')'));
    if let Some(seconds) = inside("Span::from_secs(").and_then(product) {
        return match seconds {
            _ if seconds.is_multiple_of(86_400) && seconds > 86_400 => {
                format!("{} days", seconds / 86_400)
            }
            _ if seconds.is_multiple_of(3_600) => format!("{} h", seconds / 3_600),
            _ => format!("{seconds} s"),
        };
    }
    if let Some((value, shift)) = expression.split_once(" << ")
        && let (Ok(value), Ok(shift)) = (value.parse::<u64>(), shift.parse::<u32>())
    {
        return match shift {
            10..20 => format!("{} KiB", value << (shift - 10)),
            20..30 => format!("{} MiB", value << (shift - 20)),
            _ => format!("2^{shift}"),
        };
    }
    product(expression).map_or_else(|| expression.to_owned(), grouped)
}

/// 1234567 as 1,234,567.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
