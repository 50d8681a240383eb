//! A small raw ublk server, apart from the library, that commits each known fault on demand.

fn main() {}
