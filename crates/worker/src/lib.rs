//! The worker: sessions with the server and executors
