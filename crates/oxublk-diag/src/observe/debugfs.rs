//! What `/sys/kernel/debug/block/ublkbN` says of requests.

use std::path::Path;

use oxublk::{QueueId, Tag};

use crate::facts::{Gap, Layer, Queue, Request, RequestState, TagView};

use super::files;

/// Whether debugfs can be read here.
pub(super) fn gap(debug: &Path) -> Option<Gap> {
    let error = std::fs::read_dir(debug.join("block")).err()?;
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "run as root",
        _ => "mount -t debugfs none /sys/kernel/debug; a kernel with CONFIG_BLK_DEBUG_FS",
    };
    Some(Gap {
        layer: Layer::Debugfs,
        whole: true,
        what: format!("{}: {error}", debug.join("block").display()),
        remedy: remedy.to_owned(),
    })
}

/// A disk's queues.
#[derive(Debug)]
pub(super) struct Disk {
    /// With the tags that have a request.
    pub(super) queues: Vec<Queue>,
    /// Whether it is known that no request is under way.
    pub(super) idle: bool,
}

/// The queues of a disk.
pub(super) fn disk(debug: &Path, disk: &str) -> Disk {
    let folder = debug.join("block").join(disk);
    let names = files::names(&folder).unwrap_or_default();
    let mut ids: Vec<u16> = names
        .iter()
        .filter_map(|name| name.strip_prefix("hctx")?.parse().ok())
        .collect();
    ids.sort_unstable();
    let requeued = files::text(&folder.join("requeue_list")).ok();
    let mut idle = requeued.as_ref().is_some_and(|text| text.trim().is_empty());
    let requeued = requests(&requeued.unwrap_or_default());
    let single = ids.len() == 1;
    let queue = |id: u16| {
        let text = files::text(&folder.join(format!("hctx{id}")).join("busy")).ok();
        idle &= text.as_ref().is_some_and(|text| text.trim().is_empty());
        let mut tags = requests(&text.unwrap_or_default());
        let mut count = 0;
        // The list does not say which queue its requests are of.
        if single {
            count = u32::try_from(requeued.len()).unwrap_or(u32::MAX);
            tags.extend(requeued.iter().cloned());
        }
        Queue {
            id: QueueId(id),
            cpus: Vec::new(),
            armed: None,
            unarmed: Vec::new(),
            armers: Vec::new(),
            strangers: Vec::new(),
            tags,
            misanswered: Vec::new(),
            well_answered: 0,
            requeued: count,
            canceling: None,
            aborting: None,
        }
    };
    let queues: Vec<Queue> = ids.into_iter().map(queue).collect();
    Disk {
        idle: idle && !queues.is_empty(),
        queues,
    }
}

/// `00000000f2b5ad47 {.op=READ, .cmd_flags=…, .rq_flags=…, .state=in_flight, .tag=3, .internal_tag=-1}` per line.
fn requests(text: &str) -> Vec<TagView> {
    text.lines().filter_map(request).collect()
}

fn request(line: &str) -> Option<TagView> {
    let value = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split([',', '}']).next()
    };
    let state = match value(".state=")? {
        "idle" => RequestState::Idle,
        "in_flight" => RequestState::InFlight,
        _ => RequestState::Complete,
    };
    let operation = match value(".op=")? {
        "WRITE_ZEROES" => "write zeroes".to_owned(),
        name => name.to_lowercase(),
    };
    Some(TagView {
        tag: Tag(value(".tag=")?.trim().parse().ok()?),
        place: None,
        flags: None,
        armer: None,
        buffer: None,
        descriptor: None,
        request: Some(Request {
            operation,
            sector: None,
            bytes: None,
            age_ms: None,
            identity: None,
            state,
            waiter: None,
        }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::requests;
    use crate::facts::RequestState;

    #[test]
    fn busy_lines_are_requests() {
        let text = "00000000f2b5ad47 {.op=READ, .cmd_flags=SYNC|NOMERGE|IDLE, .rq_flags=IO_STAT, .state=in_flight, .tag=3, .internal_tag=-1}\n";
        let tags = requests(text);
        let request = tags[0].request.as_ref().unwrap();
        assert_eq!((tags.len(), tags[0].tag.0), (1, 3));
        assert_eq!(
            (request.operation.as_str(), request.state),
            ("read", RequestState::InFlight)
        );
    }

    proptest! {
        #[test]
        fn garbage_is_no_request(text in "(\\.op=|\\.tag=|\\.state=|[a-z0-9,{} \n]){0,60}") {
            let _ = requests(&text);
        }
    }
}
