//! The REST schema: what clients and servers say to each other in JSON
