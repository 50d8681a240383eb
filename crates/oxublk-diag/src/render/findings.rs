//! One finding: the verdict, why, what to do, what not to do.

use crate::finding::{Certainty, Finding, Health};

use super::wrap::wrap;

/// The width of the text.
const WIDTH: usize = 110;

pub(super) fn finding(finding: &Finding) -> String {
    let head = match finding.health {
        Health::Healthy => "note",
        Health::Warning => "warning",
        Health::Stuck => "STUCK",
    };
    let place = finding.device.map_or_else(
        || "this host".to_owned(),
        |id| format!("/dev/{}", id.disk_name()),
    );
    let sure = match finding.certainty {
        Certainty::Certain => "",
        Certainty::Likely => ", likely",
        Certainty::Possible => ", possibly",
    };
    let mut text = format!("{head}: {place}: {}{sure}\n", finding.cause);
    text.push_str(&wrap(&finding.says, "  ", "  ", WIDTH));
    for (label, lines) in [
        ("why", &finding.evidence),
        ("do", &finding.remedy),
        ("not now", &finding.not_now),
    ] {
        let mut first = format!("  {label:>7}: ");
        for line in lines {
            text.push_str(&wrap(line, &first, "           ", WIDTH));
            first = "         - ".to_owned();
            if label != "not now" {
                "           ".clone_into(&mut first);
            }
        }
    }
    text
}
