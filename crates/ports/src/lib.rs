//! The traits of the shell and their contract tests
