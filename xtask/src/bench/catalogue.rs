//! The devices that take part: one line each.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a device does with data; those of one kind are compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Keeps nothing.
    Null,
    /// Keeps data in its server's memory.
    Memory,
    /// Keeps data in a file on tmpfs.
    File,
}

/// Who serves a device, and so what must be built for it on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Maker {
    /// The kernel alone.
    Kernel,
    /// We.
    Oxublk,
    /// The program rublk.
    Rublk,
    /// The examples of the library libublk.
    Libublk,
    /// The server of the kernel's selftests, `kublk`.
    Selftest,
    /// nbdkit behind the kernel's NBD client.
    Nbd,
}

impl Maker {
    /// Whether it is somebody that ours are compared with.
    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Kernel | Self::Oxublk)
    }
}

/// How a device is made, and what it is.
///
/// In `make`, `node` and `stop` stand for what differs from run to run: `{id}` for the device's number, `{queues}` for
/// how many it has, `{size}`, `{kib}` and `{mib}` for its size in bytes, KiB and MiB, `{file}` for a file of that size on tmpfs.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Its name on the command line and in files.
    pub(crate) id: &'static str,
    /// Its name in tables.
    pub(crate) title: &'static str,
    pub(crate) maker: Maker,
    pub(crate) kind: Kind,
    /// Commands, with a semicolon between them.
    pub(crate) make: &'static str,
    /// The block device that appears then.
    pub(crate) node: &'static str,
    /// Ends it.
    pub(crate) stop: &'static str,
    /// The series of the kernel that it needs.
    pub(crate) since: (u32, u32),
    /// `oxublk trace` follows its requests. Its probes cost all devices of the driver: it is measured alone.
    pub(crate) traced: bool,
}

impl Spec {
    const fn new(
        id: &'static str,
        title: &'static str,
        maker: Maker,
        kind: Kind,
        make: &'static str,
    ) -> Self {
        let stop = match maker {
            Maker::Kernel => "",
            Maker::Oxublk => "oxublk del {id}",
            Maker::Rublk => "/with/rublk del -n {id}",
            Maker::Libublk => "/with/libublk-null del -n {id}",
            Maker::Selftest => "/with/kublk del -n {id}",
            Maker::Nbd => "nbd-client -d /dev/nbd0; modprobe -r nbd",
        };
        Self {
            id,
            title,
            maker,
            kind,
            make,
            node: "/dev/ublkb{id}",
            stop,
            since: (0, 0),
            traced: false,
        }
    }

    const fn node(self, node: &'static str) -> Self {
        Self { node, ..self }
    }

    const fn since(self, major: u32, minor: u32) -> Self {
        Self {
            since: (major, minor),
            ..self
        }
    }

    const fn traced(self) -> Self {
        Self {
            traced: true,
            ..self
        }
    }
}

use Kind::{File, Memory, Null};
use Maker::{Kernel, Libublk, Nbd, Oxublk, Rublk, Selftest};

/// All devices, in the order of the tables.
#[rustfmt::skip]
const TABLE: &[Spec] = &[
    Spec::new("null-blk", "null_blk (kernel)", Kernel, Null, "modprobe null_blk nr_devices=1 queue_mode=2 submit_queues={queues} hw_queue_depth=128").node("/dev/nullb0"),
    Spec::new("brd", "brd (kernel)", Kernel, Memory, "modprobe brd rd_nr=1 rd_size={kib}").node("/dev/ram0"),
    Spec::new("loop", "loop, tmpfs, direct (kernel)", Kernel, File, "modprobe -a loop; losetup --direct-io=on /dev/loop0 {file}").node("/dev/loop0"),
    Spec::new("oxublk-null", "oxublk null", Oxublk, Null, "oxublk add null --id {id} --queues {queues} --size 250G"),
    Spec::new("oxublk-null-async", "oxublk null, async", Oxublk, Null, "oxublk add null --async --id {id} --queues {queues} --size 250G"),
    Spec::new("oxublk-null-batch", "oxublk null, batch", Oxublk, Null, "oxublk add null --batch-io --id {id} --queues {queues} --size 250G").since(7, 0),
    Spec::new("rublk-null", "rublk null", Rublk, Null, "/with/rublk add null --quiet -n {id} -q {queues}"),
    Spec::new("rublk-null-zc", "rublk null, zero copy", Rublk, Null, "/with/rublk add null --quiet -n {id} -q {queues} -z").since(6, 16),
    Spec::new("libublk-null", "libublk null", Libublk, Null, "/with/libublk-null add -n {id} -q {queues}"),
    Spec::new("libublk-null-async", "libublk null, async", Libublk, Null, "/with/libublk-null add -n {id} -q {queues} --async"),
    Spec::new("selftest-null", "selftest null", Selftest, Null, "/with/kublk add -t null -n {id} -q {queues} -d 128 --quiet"),
    Spec::new("selftest-null-zc", "selftest null, zero copy", Selftest, Null, "/with/kublk add -t null -n {id} -q {queues} -d 128 --quiet --auto_zc").since(6, 16),
    Spec::new("selftest-null-batch", "selftest null, batch", Selftest, Null, "/with/kublk add -t null -n {id} -q {queues} -d 128 --quiet --batch").since(7, 0),
    Spec::new("oxublk-mem", "oxublk mem", Oxublk, Memory, "oxublk add mem --id {id} --queues {queues} --size {size}"),
    Spec::new("oxublk-mem-copy", "oxublk mem, copy", Oxublk, Memory, "oxublk add mem --data-path copy --id {id} --queues {queues} --size {size}"),
    Spec::new("oxublk-mem-batch", "oxublk mem, batch", Oxublk, Memory, "oxublk add mem --batch-io --id {id} --queues {queues} --size {size}").since(7, 0),
    Spec::new("libublk-ramdisk", "libublk ramdisk", Libublk, Memory, "/with/libublk-ramdisk add {id} {mib}"),
    Spec::new("nbd-memory", "nbdkit memory, kernel's NBD client", Nbd, Memory, "nbdkit --unix /tmp/nbd /with/nbdkit-memory-plugin.so {size}; modprobe nbd nbds_max=1; nbd-client -unix /tmp/nbd /dev/nbd0 -connections {queues}").node("/dev/nbd0"),
    Spec::new("oxublk-file", "oxublk file, tmpfs", Oxublk, File, "oxublk add file {file} --data-path copy --id {id} --queues {queues}"),
    Spec::new("oxublk-file-zc", "oxublk file, zero copy", Oxublk, File, "oxublk add file {file} --data-path zero-copy --id {id} --queues {queues}").since(6, 16),
    Spec::new("rublk-loop", "rublk loop, tmpfs", Rublk, File, "/with/rublk add loop --quiet -n {id} -q {queues} --file {file}"),
    Spec::new("rublk-loop-zc", "rublk loop, zero copy", Rublk, File, "/with/rublk add loop --quiet -n {id} -q {queues} --file {file} -z").since(6, 16),
    Spec::new("libublk-loop", "libublk loop, tmpfs", Libublk, File, "/with/libublk-loop add -n {id} -q {queues} -d 128 -f {file}"),
    Spec::new("selftest-loop", "selftest loop, tmpfs", Selftest, File, "/with/kublk add -t loop -n {id} -q {queues} -d 128 --quiet {file}"),
    Spec::new("selftest-loop-zc", "selftest loop, zero copy", Selftest, File, "/with/kublk add -t loop -n {id} -q {queues} -d 128 --quiet --auto_zc {file}").since(6, 16),
    Spec::new("oxublk-traced", "oxublk null, traced", Oxublk, Null, "oxublk add null --id {id} --queues {queues} --size 250G").traced(),
];

/// A device of the table.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Device(usize);

impl Device {
    /// Every device, also those that are measured alone.
    pub(crate) fn every() -> impl Iterator<Item = Self> {
        (0..TABLE.len()).map(Self)
    }

    /// Those that can be measured side by side.
    pub(crate) fn side_by_side() -> Vec<Self> {
        Self::every().filter(|device| !device.traced).collect()
    }

    /// The floor under all of them, and what bounds are anchored to.
    pub(crate) fn null_blk() -> Self {
        Self(0)
    }

    /// The number that it has on the driver, when there is one of it.
    pub(crate) fn number(self) -> u32 {
        u32::try_from(self.0).unwrap_or_default() + 10
    }

    /// Whether this one of ours is compared with that one.
    pub(crate) fn competes_with(self, other: Self) -> bool {
        self.maker == Maker::Oxublk && other.maker.is_peer() && self.kind == other.kind
    }

    /// Whether it keeps data, so that it must be filled before it is read.
    pub(crate) fn keeps_data(self) -> bool {
        self.kind != Kind::Null
    }

    /// How the command line reads one.
    pub(crate) fn parser() -> impl clap::builder::TypedValueParser<Value = Self> {
        use clap::builder::{PossibleValuesParser, TypedValueParser as _};
        PossibleValuesParser::new(TABLE.iter().map(|spec| spec.id)).try_map(|id| id.parse::<Self>())
    }
}

/// For `Device`: its line of the table.
impl std::ops::Deref for Device {
    type Target = Spec;

    fn deref(&self) -> &Spec {
        // One is made from the table's own positions only.
        TABLE.get(self.0).unwrap_or(&TABLE[0])
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// There is no such device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no device {}", self.0)
    }
}

impl std::error::Error for Unknown {}

impl FromStr for Device {
    type Err = Unknown;

    fn from_str(id: &str) -> Result<Self, Unknown> {
        Self::every()
            .find(|device| device.id == id)
            .ok_or_else(|| Unknown(id.to_owned()))
    }
}

impl TryFrom<String> for Device {
    type Error = Unknown;

    fn try_from(id: String) -> Result<Self, Unknown> {
        id.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.id.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Device, Maker};
    use std::collections::BTreeSet;

    fn device(id: &str) -> Device {
        id.parse().unwrap()
    }

    #[test]
    fn each_device_has_a_name_of_its_own() {
        let ids: BTreeSet<&str> = Device::every().map(|device| device.id).collect();
        assert_eq!(ids.len(), Device::every().count());
        assert_eq!(Device::null_blk().id, "null-blk");
        assert!("no-such".parse::<Device>().is_err());
        let json = serde_json::to_string(&device("brd")).unwrap();
        assert_eq!(json, "\"brd\"");
        assert_eq!(
            serde_json::from_str::<Device>(&json).unwrap(),
            device("brd")
        );
    }

    #[test]
    fn ours_are_compared_with_peers_of_their_kind() {
        let ours = device("oxublk-mem");
        assert!(ours.competes_with(device("libublk-ramdisk")));
        assert!(!ours.competes_with(device("brd")));
        assert!(!ours.competes_with(device("rublk-null")));
        assert!(!device("rublk-null").competes_with(device("selftest-null")));
    }

    #[test]
    fn devices_that_are_made_again_and_again_can_be_stopped() {
        for device in Device::every() {
            assert_eq!(device.stop.is_empty(), device.maker == Maker::Kernel);
        }
    }
}
