//! Answers that are not what was asked for.
//!
//! The driver's descriptor of a tag stays as it was until the tag's next request, and so does the server's answer in the
//! memory of its ring, until that comes round.

use std::collections::HashMap;

use oxublk::{DeviceId, QueueId, Tag};

use crate::facts::{IoCommand, Misanswer, Ring, Snapshot};

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
        let was_refused = |submission| ring.refusal_of(submission).is_some();
        let mut last: HashMap<(QueueId, Tag), i32> = HashMap::new();
        for submission in &ring.submissions {
            let commit = submission.command.filter(IoCommand::is_commit);
            if let Some(command) = commit.filter(|_| !was_refused(submission)) {
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
                if queue.tags.iter().any(|view| view.tag == *tag) {
                    continue;
                }
                match self.answer(head, *tag, *result) {
                    Some(answer)
                        if u64::try_from(answer.result) == Ok(answer.asked_bytes)
                            && answer.asked_bytes > 0 =>
                    {
                        queue.well_answered += u16::from(tag.0 != 0);
                    }
                    answer => queue.misanswered.extend(answer),
                }
            }
            queue.misanswered.sort_by_key(|answer| answer.tag);
        }
    }

    /// The last answer of a tag, beside what was asked; none when it cannot be compared: an errno is an answer, and only reads
    /// and writes are answered with their length.
    fn answer(&self, queue: &View, tag: Tag, result: i32) -> Option<Misanswer> {
        let descriptor = self.descriptor(queue, tag)?;
        let operation = match descriptor.op_flags & 0xff {
            0 => "read",
            1 => "write",
            _ => return None,
        };
        let used = descriptor.sectors > 0 || descriptor.address > 0;
        (used && result >= 0).then(|| Misanswer {
            tag,
            operation: operation.to_owned(),
            asked_bytes: u64::from(descriptor.sectors) * 512,
            result,
        })
    }
}
