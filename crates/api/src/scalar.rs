//! Values that people write as short texts: `5m`, `512MiB`, `1.5` cpus, `1-100%8`, `zone=a|b`, `exit:1-9`.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rota_core::command::RetryRule;
use rota_types::limits::RESOURCE_AMOUNT_MAX;
use rota_types::{Constraint, Predicate, RangeSet, Span, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text is not a value of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{hint}", if hint.is_empty() { "" } else { "; " })]
pub struct ScalarError {
    /// What is wrong.
    pub message: String,
    /// How to write it instead.
    pub hint: String,
}

impl ScalarError {
    fn new(text: &str, what: &str, hint: &str) -> Self {
        Self { message: format!("\"{text}\" is not {what}"), hint: hint.to_owned() }
    }
}

/// Bytes, written in base64 with padding.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Base64(pub Vec<u8>);

/// A length of time, written as a number and a unit: `1500ms`, `30s`, `5m`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub Span);

/// Bytes, written as a whole number with an optional unit: `512MiB`, `1GB`, `4096`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// An amount with up to three decimals, written as a number or a text: `2`, `0.5`, `"1.5"`. Held in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub u64);

/// An instant of wall-clock time, written as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Timestamp);

/// Array indexes, written `1-1000` or `1-9,20`; `%8` behind them limits how many run at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArrayRange {
    /// The indexes.
    pub indexes: RangeSet,
    /// How many may run at a time.
    pub parallel: Option<u32>,
}

/// A demand on one label of a node: `zone=a`, `zone=a|b`, `zone!=a`, `ssd` (is there), `!ssd` (is absent).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement(pub Constraint);

/// A kind of failure: `exit:75`, `exit:1-9`, `signal`, `timeout`, `start` or `http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn(pub RetryRule);

/// The pause between two attempts: `10s` (always the same) or `5s..5m` (doubling from the first to the second).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffRange {
    /// The first pause.
    pub base: Span,
    /// The longest pause.
    pub max: Span,
}

macro_rules! serde_as_text {
    ($($name:ident)*) => { $(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )* };
}

serde_as_text!(Base64 Duration Moment ArrayRange Requirement RetryOn BackoffRange);

impl From<std::time::Duration> for Duration {
    /// In whole microseconds.
    fn from(time: std::time::Duration) -> Self {
        Self(Span(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl From<Duration> for std::time::Duration {
    fn from(time: Duration) -> Self {
        Self::from_micros(time.0.0)
    }
}

impl FromStr for Base64 {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let wrong = |_| ScalarError {
            message: "the value is not base64".to_owned(),
            hint: "encode the bytes with padding, as `base64` does".to_owned(),
        };
        STANDARD.decode(text).map(Self).map_err(wrong)
    }
}

impl fmt::Display for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.0))
    }
}

impl FromStr for Duration {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let wrong = || ScalarError::new(text, "a duration", "write 1500ms, 30s, 5m, 2h or 1d");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let micros: u64 = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(micros).map(|micros| Self(Span(micros))).ok_or_else(wrong)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BackoffRange {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let hint = "write 10s for a fixed pause, 5s..5m for one that doubles";
        let wrong = |_| ScalarError::new(text, "a back-off", hint);
        let (base, max) = text.split_once("..").unwrap_or((text, text));
        let base = base.parse::<Duration>().map_err(wrong)?.0;
        let max = max.parse::<Duration>().map_err(wrong)?.0;
        if max < base {
            let message = format!("\"{text}\" ends before it begins");
            return Err(ScalarError { message, hint: hint.to_owned() });
        }
        Ok(Self { base, max })
    }
}

impl fmt::Display for BackoffRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.base == self.max {
            return self.base.fmt(f);
        }
        write!(f, "{}..{}", self.base, self.max)
    }
}

/// The units of sizes, longest exact one first when printing.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let wrong = || ScalarError::new(text, "a size", "write bytes or a unit: 4096, 512MiB, 1GB");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "" => 1,
            unit => SIZE_UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, factor)| *factor)
                .ok_or_else(wrong)?,
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        match SIZE_UNITS.iter().find(exact) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Amount {
    /// `units` whole units.
    #[must_use]
    pub const fn whole(units: u64) -> Self {
        Self(units.saturating_mul(1_000))
    }

    /// The amount as a real number, for people.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// The amount nearest to `number`, if it is one: not negative, at most three decimals.
    #[must_use]
    pub fn from_f64(number: f64) -> Option<Self> {
        let millis = (number * 1_000.0).round();
        let exact = (millis / 1_000.0 - number).abs() <= number.abs() * 1e-12;
        let fits = (0.0..=RESOURCE_AMOUNT_MAX as f64 * 2.0).contains(&millis);
        (exact && fits).then_some(Self(millis as u64))
    }
}

impl FromStr for Amount {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let hint = "write a number with up to three decimals: 2, 0.5, 1.25";
        let wrong = || ScalarError::new(text, "an amount", hint);
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let thousandths: u64 = format!("{decimals:0<3}").parse().map_err(|_| wrong())?;
        whole
            .checked_mul(1_000)
            .and_then(|millis| millis.checked_add(thousandths))
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1_000, self.0 % 1_000) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, rest) => f.write_str(format!("{whole}.{rest:03}").trim_end_matches('0')),
        }
    }
}

impl Moment {
    /// The time of day, by this machine's clock.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = since.unwrap_or_default().as_micros();
        Self(Timestamp(u64::try_from(micros).unwrap_or(u64::MAX)))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0.0
    }
}

impl FromStr for Moment {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let hint = "write RFC 3339, such as 2026-11-21T08:12:40Z";
        let wrong = || ScalarError::new(text, "an instant", hint);
        let instant: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        let micros = u64::try_from(instant.as_microsecond()).map_err(|_| wrong())?;
        Ok(Self(Timestamp(micros)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        let instant = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
        instant.fmt(f)
    }
}

impl FromStr for ArrayRange {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let hint = "write 1-1000, or 1-9,20; add %8 to run at most 8 at a time";
        let wrong = || ScalarError::new(text, "an array", hint);
        let (indexes, parallel) = match text.split_once('%') {
            Some((indexes, parallel)) => (indexes, Some(parallel.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let indexes = parse_ranges(indexes).ok_or_else(wrong)?;
        Ok(Self { indexes, parallel })
    }
}

/// Reads `1-3,7`. `None` if it isn't one: both ends of a range are included, and a range doesn't run backwards.
#[must_use]
pub fn parse_ranges(text: &str) -> Option<RangeSet> {
    let mut set = RangeSet::default();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let plain = |end: &str| end.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(first) || !plain(last) {
            return None;
        }
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last < first {
            return None;
        }
        set.insert_range(first, last.checked_add(1)?);
    }
    Some(set)
}

impl fmt::Display for ArrayRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.indexes.fmt(f)?;
        self.parallel.map_or(Ok(()), |parallel| write!(f, "%{parallel}"))
    }
}

impl FromStr for Requirement {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let hint = "write zone=a, zone=a|b, zone!=a, ssd or !ssd";
        let wrong = || ScalarError::new(text, "a requirement", hint);
        let list = |values: &str| values.split('|').map(Box::from).collect::<Vec<Box<str>>>();
        let (key, predicate) = if let Some((key, values)) = text.split_once("!=") {
            (key, Predicate::NotIn(list(values)))
        } else if let Some((key, values)) = text.split_once('=') {
            // `a==b` would be a label that nobody has.
            if values.starts_with('=') {
                return Err(wrong());
            }
            (key, Predicate::In(list(values)))
        } else if let Some(key) = text.strip_prefix('!') {
            (key, Predicate::Absent)
        } else {
            (text, Predicate::Exists)
        };
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "!=|,".contains(c)) {
            return Err(wrong());
        }
        Ok(Self(Constraint { key: key.into(), predicate }))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RetryOn {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let hint = "write exit:75, exit:1-9, signal, timeout, start or http";
        let wrong = || ScalarError::new(text, "a kind of failure", hint);
        let rule = match text {
            "signal" => RetryRule::Signal,
            "timeout" => RetryRule::Timeout,
            "start" => RetryRule::Start,
            "http" => RetryRule::Http,
            _ => {
                let codes = text.strip_prefix("exit:").ok_or_else(|| known_kind(text, wrong()))?;
                let (from, to) = codes.split_once('-').unwrap_or((codes, codes));
                let code = |text: &str| text.parse::<u8>().map(i32::from).map_err(|_| wrong());
                let (from, to) = (code(from)?, code(to)?);
                if to < from {
                    return Err(wrong());
                }
                RetryRule::Exit(from, to)
            }
        };
        Ok(Self(rule))
    }
}

/// `lost` and misspelt kinds get an answer of their own.
fn known_kind(text: &str, error: ScalarError) -> ScalarError {
    if text == "lost" {
        let hint = "leave it out: attempts lost with their node are always tried again".to_owned();
        return ScalarError { hint, ..error };
    }
    match crate::suggest::nearest(text, ["signal", "timeout", "start", "http"]) {
        Some(kind) => ScalarError { hint: format!("did you mean \"{kind}\"?"), ..error },
        None => error,
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RetryRule::Exit(from, to) if from == to => write!(f, "exit:{from}"),
            RetryRule::Exit(from, to) => write!(f, "exit:{from}-{to}"),
            RetryRule::Signal => f.write_str("signal"),
            RetryRule::Timeout => f.write_str("timeout"),
            RetryRule::Start => f.write_str("start"),
            RetryRule::Http => f.write_str("http"),
        }
    }
}

#[cfg(test)]
mod tests;
