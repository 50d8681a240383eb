//! `oxublk features`

use oxublk::Control;
use oxublk_cli::exit::Outcome;
use oxublk_cli::report::DriverFeatures;
use oxublk_cli::text::{table, yes_no};

use crate::output::Output;

pub(crate) fn run(output: &Output) -> Outcome<()> {
    let present = Control::open()?.features()?;
    output.result(&DriverFeatures::from(present), text)
}

fn text(driver: &DriverFeatures) -> String {
    let head = ["FEATURE", "BIT", "SINCE", "HERE", "MEANING"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(driver.features.iter().map(|feature| {
        vec![
            feature.name.to_owned(),
            feature.bit.to_string(),
            feature.since.to_owned(),
            yes_no(feature.present).to_owned(),
            feature.meaning.to_owned(),
        ]
    }));
    rows.extend(driver.unknown_bits.iter().map(|bit| {
        let meaning = "Not known to this version of oxublk.";
        vec![
            "?".to_owned(),
            bit.to_string(),
            "?".to_owned(),
            "yes".to_owned(),
            meaning.to_owned(),
        ]
    }));
    table(&rows)
}
