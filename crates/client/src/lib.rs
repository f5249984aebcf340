//! The client of the REST interface
