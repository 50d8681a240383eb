//! The probes are in the programs as they are built, not only in the source.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use object::{Object as _, ObjectSection as _};

#[test]
#[cfg(target_pointer_width = "64")]
fn both_programs_carry_the_notes_of_every_probe() {
    for program in [env!("CARGO_BIN_EXE_oxublk"), env!("CARGO_BIN_EXE_ublk-mem")] {
        let bytes = std::fs::read(program).unwrap();
        let file = object::File::parse(bytes.as_slice()).unwrap();
        let notes = file.section_by_name(".note.stapsdt").unwrap();
        let notes = notes.data().unwrap();
        for name in [
            "armed",
            "reaped",
            "handed",
            "answered",
            "submitted",
            "stuck",
        ] {
            let note = format!("oxublk\0{name}\0");
            let found = notes
                .windows(note.len())
                .any(|bytes| bytes == note.as_bytes());
            assert!(found, "{program} has no probe {name}");
        }
    }
}
