//! The only crate that knows bytes: protobuf messages and their conversions
