//! Answers that are not what was asked for.
//!
//! The driver's descriptor of a tag stays as it was until the tag's next request, and so does the server's answer in the
//! memory of its ring, until that comes round.

use std::collections::HashMap;

use oxublk::{DeviceId, QueueId, Tag};

use crate::facts::{Misanswer, Ring, Snapshot};

use super::Kernel;
use super::memory::View;

impl Kernel {
    /// Compares the last answer of each tag that has no request now with its descriptor.
    pub(super) fn misanswered(
        &self,
        snapshot: &mut Snapshot,
        ring: &Ring,
        queues: &HashMap<(DeviceId, QueueId), View>,
    ) {
        let mut last: HashMap<(QueueId, Tag), i32> = HashMap::new();
        for command in ring
            .submissions
            .iter()
            .filter_map(|submission| submission.command)
        {
            if command.is_commit() {
                last.insert((command.queue, command.tag), command.result);
            }
        }
        for ((id, queue_id), head) in queues {
            let device = snapshot.devices.iter_mut().find(|device| device.id == *id);
            let Some(queue) = device
                .and_then(|device| device.queues.iter_mut().find(|queue| queue.id == *queue_id))
            else {
                continue;
            };
            for ((_, tag), result) in last.iter().filter(|((queue, _), _)| queue == queue_id) {
                if queue.tags.iter().all(|view| view.tag != *tag) {
                    queue
                        .misanswered
                        .extend(self.misanswer(head, *tag, *result));
                }
            }
            queue.misanswered.sort_by_key(|answer| answer.tag);
        }
    }

    /// An errno is an answer; reads and writes are answered with their length.
    fn misanswer(&self, queue: &View, tag: Tag, result: i32) -> Option<Misanswer> {
        let descriptor = self.descriptor(queue, tag)?;
        let operation = match descriptor.op_flags & 0xff {
            0 => "read",
            1 => "write",
            _ => return None,
        };
        let asked_bytes = u64::from(descriptor.sectors) * 512;
        let answered = u64::try_from(result).ok()?;
        (answered != asked_bytes).then(|| Misanswer {
            tag,
            operation: operation.to_owned(),
            asked_bytes,
            result,
        })
    }
}
