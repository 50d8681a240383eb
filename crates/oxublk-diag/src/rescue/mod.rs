//! Ends a request that its server will never answer.
mod arch;
mod remote;
