//! Static probes (USDT) at the stations of a request, for bpftrace, perf and others: provider `oxublk`.
//!
//! | probe | when |
//! |---|---|
//! | `armed` | a tag is given to the driver for the first time |
//! | `reaped` | a request has come |
//! | `handed` | the disk is called |
//! | `answered` | the disk has answered |
//! | `submitted` | the answer is given to the driver, and with it the tag |
//! | `stuck` | the watchdog saw that a request has taken too long |
//!
//! Six arguments, as many as bpftrace takes: the device's id, the queue, the tag, the operation by [`Operation::index`], the
//! first sector, and the length in bytes; of `answered` and `submitted` the last is the result that the driver is told
//! instead (bytes, or a negative errno), of `stuck` the age in ns.
//! A probe that nobody listens to costs a load and a branch; arguments are computed only for a listener.
//!
//! [`Operation::index`]: crate::Operation::index

use crate::id::{DeviceId, QueueId, Tag};
use crate::recorder::{Record, Recorded};

/// Arguments are as wide as a register, and sectors are not: on 32-bit processors there are no probes.
macro_rules! fire {
    ($name:ident, $device:expr, $queue:expr, $tag:expr, $operation:expr, $sector:expr, $last:expr) => {{
        #[cfg(target_pointer_width = "64")]
        let _ = probe::probe_lazy!(
            oxublk, $name, $device.0, $queue.0, $tag.0, $operation, $sector, $last
        );
        #[cfg(not(target_pointer_width = "64"))]
        let _ = ($device, $queue, $tag);
    }};
}

/// Whose probe fires. Passed by reference, so that it is read for a listener only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) device: DeviceId,
    pub(crate) queue: QueueId,
}

macro_rules! station {
    ($name:ident, $last:expr) => {
        #[inline]
        pub(crate) fn $name(place: &Place, tag: Tag, record: &Record) {
            fire!(
                $name,
                place.device,
                place.queue,
                tag,
                record.operation(),
                record.sector(),
                ($last)(record)
            );
        }
    };
}

station!(armed, Record::bytes);
station!(reaped, Record::bytes);
station!(handed, Record::bytes);
station!(answered, Record::result);
station!(submitted, Record::result);

pub(crate) fn stuck(device: DeviceId, request: &Recorded, age_ns: u64) {
    fire!(
        stuck,
        device,
        request.queue,
        request.tag,
        request.operation.index(),
        request.sector,
        age_ns
    );
}
