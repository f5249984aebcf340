//! Queue disciplines, placement policies and the planning pass
