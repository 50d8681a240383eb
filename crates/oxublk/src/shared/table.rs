//! Which memories a device shares with its clients: [`Table`], and each queue's [`View`] of it.
//!
//! A queue looks a memory up for each request that lies in one. It does so in its own copy of the table, without a lock, and looks at a
//! number whether the copy is old.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oxublk_sys::{shmem_index, shmem_offset};

use super::{SharedMemory, SharedPart, Slot};

/// How long a request waits for the slot that it names to become known here. The driver may use a slot before its number has
/// come back to whoever asked for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The memories of a device, by their slots.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Mutex<Slots>,
    changed: Condvar,
    /// How often the table changed.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Slots {
    memories: Vec<Option<SharedMemory>>,
    /// Registrations that are with the driver.
    coming: usize,
}

impl Table {
    /// Calls `register`, and keeps the memory in the slot that it returns.
    pub(crate) fn add<E>(
        &self,
        memory: &SharedMemory,
        register: impl FnOnce() -> Result<Slot, E>,
    ) -> Result<Slot, E> {
        self.lock().coming += 1;
        let registered = register();
        let mut slots = self.lock();
        slots.coming -= 1;
        if let Ok(slot) = registered {
            slots.set(slot, Some(memory.clone()));
        }
        self.publish(slots);
        registered
    }

    /// The driver has the slot's memory no more.
    pub(crate) fn remove(&self, slot: Slot) {
        let mut slots = self.lock();
        slots.set(slot, None);
        self.publish(slots);
    }

    /// Each slot that has a memory.
    pub(crate) fn all(&self) -> Vec<(Slot, SharedMemory)> {
        let slots = self.lock();
        let numbered = (0..).map(Slot).zip(&slots.memories);
        numbered
            .filter_map(|(slot, memory)| Some((slot, memory.clone()?)))
            .collect()
    }

    fn publish(&self, slots: MutexGuard<'_, Slots>) {
        self.version.fetch_add(1, Release);
        drop(slots);
        self.changed.notify_all();
    }

    /// Waits until the slot has a memory, if one is about to come.
    #[cold]
    fn wait_for(&self, slot: Slot) {
        let unknown = |slots: &mut Slots| slots.coming > 0 && slots.get(slot).is_none();
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, unknown);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn get(&self, Slot(slot): Slot) -> Option<&SharedMemory> {
        self.memories.get(usize::from(slot))?.as_ref()
    }

    fn set(&mut self, Slot(slot): Slot, memory: Option<SharedMemory>) {
        let index = usize::from(slot);
        if index >= self.memories.len() {
            self.memories.resize_with(index + 1, || None);
        }
        if let Some(place) = self.memories.get_mut(index) {
            *place = memory;
        }
    }
}

/// One queue's copy of the table.
#[derive(Debug)]
pub(crate) struct View {
    table: Arc<Table>,
    version: u64,
    /// Each counted by this queue alone.
    memories: Vec<Option<Arc<SharedMemory>>>,
}

impl View {
    pub(crate) fn new(table: &Arc<Table>) -> Self {
        let mut view = Self {
            table: Arc::clone(table),
            version: 0,
            memories: Vec::new(),
        };
        view.copy();
        view
    }

    /// Sees what changed: lets go of memories that are shared no more.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        if self.table.version.load(Acquire) != self.version {
            self.copy();
        }
    }

    #[cold]
    fn copy(&mut self) {
        let slots = self.table.lock();
        self.version = self.table.version.load(Acquire);
        self.memories = slots
            .memories
            .iter()
            .map(|memory| memory.clone().map(Arc::new))
            .collect();
    }

    /// The place that a descriptor's address means, for `length` bytes.
    pub(crate) fn part(&mut self, address: u64, length: usize) -> io::Result<SharedPart> {
        let slot = Slot(shmem_index(address));
        self.refresh();
        if self.get(slot).is_none() {
            self.table.wait_for(slot);
            self.refresh();
        }
        let memory = self.get(slot).ok_or_else(|| unknown(slot))?;
        let start = usize::try_from(shmem_offset(address)).map_err(io::Error::other)?;
        SharedPart::new(memory, start, length)
    }

    fn get(&self, Slot(slot): Slot) -> Option<&Arc<SharedMemory>> {
        self.memories.get(usize::from(slot))?.as_ref()
    }
}

#[cold]
fn unknown(slot: Slot) -> io::Error {
    io::Error::other(format!(
        "the driver names shared memory {slot}, which this server has not registered"
    ))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use oxublk_sys::shmem_addr;

    use super::*;

    fn memory() -> SharedMemory {
        SharedMemory::create("table", 4096).expect("memory")
    }

    #[test]
    fn a_view_follows_the_table() {
        let table = Arc::new(Table::default());
        let mut view = View::new(&table);
        assert!(view.part(shmem_addr(0, 0), 512).is_err(), "none yet");
        let slot = table.add(&memory(), || Ok::<_, ()>(Slot(2)));
        assert_eq!(slot, Ok(Slot(2)));
        assert!(view.part(shmem_addr(2, 3584), 512).is_ok());
        let error = view.part(shmem_addr(2, 3585), 512).expect_err("too far");
        assert_eq!(error.kind(), io::ErrorKind::Other, "EIO for the client");
        assert!(view.part(shmem_addr(1, 0), 512).is_err(), "another slot");
        assert_eq!(table.all().len(), 1);
        table.remove(Slot(2));
        assert!(view.part(shmem_addr(2, 0), 512).is_err(), "removed");
        assert!(table.add(&memory(), || Err(())).is_err());
        assert!(table.all().is_empty());
    }

    #[test]
    fn a_request_that_is_faster_than_the_registration_waits_for_it() {
        let table = Arc::new(Table::default());
        let mut view = View::new(&table);
        let mut request = None;
        let added = table.add(&memory(), || {
            // The driver's answer is on its way, and a client uses the memory already.
            request = Some(thread::spawn(move || {
                view.part(shmem_addr(0, 0), 512).map(drop)
            }));
            Ok::<_, ()>(Slot(0))
        });
        assert_eq!(added, Ok(Slot(0)));
        let request = request.expect("started").join().expect("no panic");
        assert!(request.is_ok(), "{request:?}");
    }
}
