//! The page for programs names every cause.

#[test]
fn every_cause_is_on_the_page() {
    let page = include_str!("../../../docs/doctor.md");
    for cause in oxublk_diag::finding::Cause::ALL {
        let row = format!("| `{cause}` |");
        assert!(page.contains(&row), "docs/doctor.md lacks {row}");
    }
}
