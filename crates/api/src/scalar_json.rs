//! JSON forms of amounts and sizes: numbers, or texts with units.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::scalar::{
    Amount, ArrayRange, BackoffRange, Base64, Duration, Moment, Requirement, RetryOn, Size,
};

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1_000) {
            return serializer.serialize_u64(self.0 / 1_000);
        }
        serializer.serialize_f64(self.as_f64())
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number with up to three decimals")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
        number.checked_mul(1_000).map(Amount).ok_or_else(|| E::custom("the amount is too large"))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
        u64::try_from(number)
            .map_err(|_| E::custom("the amount is negative"))
            .and_then(|number| self.visit_u64(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
        Amount::from_f64(number).ok_or_else(|| E::custom("not an amount with up to three decimals"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as 512MiB, or bytes")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Size, E> {
        Ok(Size(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
        u64::try_from(number).map(Size).map_err(|_| E::custom("the size is negative"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// The schema of scalars that are texts in JSON.
macro_rules! text_schema {
    ($($name:ident { pattern: $pattern:expr, example: $example:literal, about: $about:literal })*) => { $(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern($pattern)
                    .examples([serde_json::Value::from($example)])
                    .description(Some($about))
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )* };
}

text_schema! {
    Base64 {
        pattern: Some("^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"), example: "aGVsbG8=",
        about: "Bytes in base64, with padding."
    }
    Duration {
        pattern: Some("^[0-9]{1,9}(us|ms|s|m|h|d)$"), example: "5m",
        about: "A length of time: 1500ms, 30s, 5m, 2h, 1d."
    }
    BackoffRange {
        pattern: Some("^[0-9]{1,9}(us|ms|s|m|h|d)(\\.\\.[0-9]{1,9}(us|ms|s|m|h|d))?$"), example: "5s..5m",
        about: "A pause: 10s is always the same, 5s..5m doubles from the first to the second."
    }
    ArrayRange {
        pattern: Some("^[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*(%[0-9]{1,9})?$"),
        example: "1-1000%8",
        about: "Array indexes: 1-1000 or 1-9,20. A %8 behind them lets at most 8 run at a time."
    }
    Requirement {
        pattern: Some("^[^\\s]+$"), example: "zone=a|b",
        about: "A demand on a label: zone=a, zone=a|b, zone!=a, ssd (is there), !ssd (is absent)."
    }
    RetryOn {
        pattern: Some("^(exit:[0-9]{1,3}(-[0-9]{1,3})?|signal|timeout|start|http)$"), example: "exit:75",
        about: "A kind of failure."
    }
}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples([serde_json::Value::from("2026-11-21T08:12:40.5Z")])
            .description(Some("An instant, as RFC 3339 in UTC."))
            .into()
    }
}

impl ToSchema for Moment {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Moment")
    }
}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).build();
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[0-9]{1,9}(\\.[0-9]{1,3})?$"))
            .build();
        OneOfBuilder::new()
            .item(number)
            .item(text)
            .description(Some("A number with up to three decimals."))
            .into()
    }
}

impl ToSchema for Amount {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Amount")
    }
}

impl PartialSchema for Size {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0))
            .build();
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[0-9]{1,12}(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)?$"))
            .build();
        OneOfBuilder::new()
            .item(number)
            .item(text)
            .description(Some("Bytes: a whole number, or a text such as 512MiB or 1GB."))
            .into()
    }
}

impl ToSchema for Size {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Size")
    }
}
