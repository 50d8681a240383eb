//! What a ring's memory says of a tag.
//!
//! Entries stay in a ring until it comes round. A submission and its completion know each other by
//! `user_data`; a server may use one value for all commands of a tag, so the newest of each count.

use oxublk::{QueueId, Tag};

use crate::facts::{Completion, IoCommand, Ring, Submission};

use super::case::DeviceCase;

/// The commands of a tag that the rings of a device's servers still hold.
pub(super) struct History<'a> {
    /// By ring, the oldest first.
    commands: Vec<(&'a Ring, &'a Submission)>,
}

impl<'a> History<'a> {
    pub(super) fn of(device: &DeviceCase<'a>, queue: QueueId, tag: Tag) -> Self {
        let commands = commands(device)
            .filter(|(_, _, command)| command.queue == queue && command.tag == tag)
            .map(|(ring, submission, _)| (ring, submission))
            .collect();
        Self { commands }
    }

    /// The newest command that the kernel has taken.
    pub(super) fn last(&self) -> Option<(&'a Ring, &'a Submission)> {
        self.commands
            .iter()
            .rev()
            .find(|(_, submission)| submission.taken)
            .copied()
    }

    /// An answer that was written down and not taken.
    pub(super) fn untaken_answer(&self) -> Option<(&'a Ring, &'a Submission)> {
        self.commands.iter().rev().copied().find(|(_, submission)| {
            !submission.taken
                && submission
                    .command
                    .is_some_and(|command| command.is_commit())
        })
    }

    /// The newest command, when the driver refused it: the completion says with which errno.
    pub(super) fn refused(&self) -> Option<(&'a Ring, &'a Submission, i32)> {
        let (ring, submission) = self.last()?;
        Some((ring, submission, ring.refusal_of(submission)?))
    }

    /// The completion that carries the request that the server has now.
    pub(super) fn delivery(&self) -> Option<(&'a Ring, &'a Completion)> {
        let (ring, submission) = self.last()?;
        Some((ring, ring.completion_of(submission)?))
    }

    /// The newest answer that the kernel has taken and not refused, of those that `wanted` picks.
    pub(super) fn accepted(
        &self,
        wanted: impl Fn(&Ring, &Submission) -> bool,
    ) -> Option<IoCommand> {
        let taken = self.commands.iter().rev().filter(|(ring, submission)| {
            submission.taken && wanted(ring, submission) && ring.refusal_of(submission).is_none()
        });
        let mut commands = taken.filter_map(|(_, submission)| submission.command);
        commands.find(IoCommand::is_commit)
    }

    /// Whether the newest command asked for no completion.
    pub(super) fn is_silent(&self) -> bool {
        self.last()
            .is_some_and(|(_, submission)| submission.flags & Submission::CQE_SKIP_SUCCESS != 0)
    }
}

/// All ublk commands for a device in the rings of its servers.
pub(super) fn commands<'a>(
    device: &DeviceCase<'a>,
) -> impl Iterator<Item = (&'a Ring, &'a Submission, IoCommand)> + use<'a> {
    let id = device.now.id;
    device.rings().flat_map(move |ring| {
        ring.submissions.iter().filter_map(move |submission| {
            let command = submission.command?;
            (submission.device == Some(id)).then_some((ring, submission, command))
        })
    })
}

/// `-22 (EINVAL)`.
pub(super) fn errno(result: i32) -> String {
    let name = match -result {
        4 => "EINTR",
        9 => "EBADF",
        11 => "EAGAIN",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        19 => "ENODEV",
        22 => "EINVAL",
        95 => "EOPNOTSUPP",
        125 => "ECANCELED",
        _ => return result.to_string(),
    };
    format!("{result} ({name})")
}
