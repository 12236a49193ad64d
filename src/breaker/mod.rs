//! The breaker room.
