//! The deterministic simulator of the whole system
