//! Threads in the kernel's structures.

use crate::facts::{Armer, Pid, Tid};

use super::memory::View;
use super::{Kernel, xarray};

const PF_EXITING: u64 = 0x4;
const PF_IO_WORKER: u64 = 0x10;
/// Longer than any thread's list of rings.
const MAX_RINGS: usize = 256;

impl Kernel {
    /// The structure of a thread.
    pub(super) fn task(&self, tid: Tid) -> Option<u64> {
        let layout = &self.layout.task;
        let head = self.memory.get(self.symbols.pids, layout.pids)?;
        let pid = xarray::entry(&self.memory, &self.layout.xarray, head, u64::from(tid.0))?;
        let link = self.memory.bytes(
            pid.checked_add(u64::try_from(layout.pid_tasks.offset).ok()?)?,
            8,
        )?;
        let link = u64::from_le_bytes(link.try_into().ok()?);
        let task = link.checked_sub(u64::try_from(layout.pid_links.offset).ok()?)?;
        // What was found must be what was looked for.
        (self.memory.get(task, layout.pid)? == u64::from(tid.0)).then_some(task)
    }

    /// Who a thread's structure is; the driver keeps it also after the thread's end.
    pub(super) fn armer(&self, task: u64) -> Option<Armer> {
        let layout = &self.layout.task;
        let number = |field| u32::try_from(self.memory.get(task, field)?).ok();
        let name = task.checked_add(u64::try_from(layout.comm.offset).ok()?)?;
        let name = self.memory.bytes(name, layout.comm.size.min(16))?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let flags = self.memory.get(task, layout.flags)?;
        let exited = self.memory.get(task, layout.exit_state)? != 0;
        let (tid, pid) = (number(layout.pid)?, number(layout.tgid)?);
        // Process ids end at 2²².
        (tid != 0 && tid < 1 << 22 && pid < 1 << 22).then(|| Armer {
            tid: Tid(tid),
            pid: Pid(pid),
            comm: String::from_utf8_lossy(name).into_owned(),
            alive: !exited && flags & PF_EXITING == 0,
        })
    }

    /// The rings that a thread has submitted to.
    pub(super) fn rings_of_task(&self, task: u64) -> Vec<u64> {
        let layout = &self.layout.task;
        let nodes = || {
            let own = self.memory.pointer(task, layout.io_uring)?;
            let head = self.memory.get(own, layout.io_uring_rings)?;
            Some(xarray::entries(
                &self.memory,
                &self.layout.xarray,
                head,
                MAX_RINGS,
            ))
        };
        let ring = |(_, node)| self.memory.pointer(node, layout.node_ring);
        nodes()
            .unwrap_or_default()
            .into_iter()
            .filter_map(ring)
            .collect()
    }

    /// The private data of an open file, and its operations.
    pub(super) fn file(&self, task: u64, fd: i32) -> Option<(u64, u64)> {
        let layout = &self.layout.task;
        let files = self.memory.pointer(task, layout.files)?;
        let table = self.memory.pointer(files, layout.table)?;
        let fd = u64::try_from(fd).ok()?;
        if fd >= self.memory.get(table, layout.table_size)? {
            return None;
        }
        let array = self.memory.pointer(table, layout.table_files)?;
        let file = self.memory.bytes(array.checked_add(fd * 8)?, 8)?;
        let file = u64::from_le_bytes(file.try_into().ok()?);
        Some((
            self.memory.pointer(file, layout.file_data)?,
            self.memory.pointer(file, layout.file_operations)?,
        ))
    }

    /// The io_uring command that a worker executes: its opcode, and the first 64 bytes of its submission.
    pub(super) fn worker_command(&self, task: u64) -> Option<(u32, View)> {
        let (layout, ring) = (&self.layout.task, &self.layout.ring);
        if self.memory.get(task, layout.flags)? & PF_IO_WORKER == 0 {
            return None;
        }
        let worker = self.memory.pointer(task, layout.io_worker)?;
        let work = self.memory.pointer(worker, layout.worker_work)?;
        let kiocb = work.checked_sub(u64::try_from(ring.kiocb_work.offset).ok()?)?;
        let command = kiocb.checked_add(u64::try_from(ring.kiocb_command.offset).ok()?)?;
        let sqe = self.memory.pointer(command, ring.command_sqe)?;
        let op = u32::try_from(self.memory.get(command, ring.command_op)?).ok()?;
        Some((op, self.memory.view(sqe, 64)?))
    }

    /// For how long a sleeping thread has not run, in milliseconds.
    pub(super) fn asleep_ms(&self, task: u64, now_ns: u64) -> Option<u64> {
        let last = self.memory.get(task, self.layout.task.last_ran?)?;
        Some(now_ns.saturating_sub(last) / 1_000_000)
    }
}
