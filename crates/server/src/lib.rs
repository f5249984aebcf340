//! The server: event loop, REST and worker sessions
