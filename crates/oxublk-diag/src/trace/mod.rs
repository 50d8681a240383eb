//! Follows requests live, through a tracefs instance of its own.
