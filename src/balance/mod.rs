//! The balance room.
