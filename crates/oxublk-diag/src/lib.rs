//! Where is my request, and why: looks at any ublk server from outside, ours or a stranger's, and says
//! where each request is stuck, on what evidence, and what to do.
//!
//! Three parts that do not know each other:
//!
//! | part | what it does | what it knows |
//! |---|---|---|
//! | [`observe`] | looks, and changes nothing | how to read `/proc`, `/sys`, debugfs, the driver's own structures |
//! | [`decide`] | from two looks to findings: a pure function | which observation decides which cause |
//! | [`render`] | findings as text for people | how to print |
//!
//! What they share is data: [`facts`], what was seen, and [`finding`], what follows from it. [`doctor`] puts them
//! together. Beside them [`trace`] follows requests live, and [`rescue`] ends one that nobody will ever answer.

#![forbid(unsafe_code)]

pub mod decide;
pub mod doctor;
pub mod facts;
pub mod finding;
pub mod observe;
pub mod render;
pub mod rescue;
pub mod trace;
pub mod words;
