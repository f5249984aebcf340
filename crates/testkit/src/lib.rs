//! Builders for tests
