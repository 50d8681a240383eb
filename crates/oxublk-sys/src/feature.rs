//! The driver's features: what GET_FEATURES answers and ADD_DEV asks for.

use bitflags::bitflags;

/// A feature: its flag, name, first kernel and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureInfo {
    /// The flag, one bit.
    pub flag: Features,
    /// The kernel's name for it without prefix, as in `USER_COPY`.
    pub name: &'static str,
    /// The first kernel on which it works.
    pub since: &'static str,
    /// What it is for, in one sentence.
    pub meaning: &'static str,
}

/// Makes the flags and their table from one list: name = bit, since, meaning, and more
/// documentation.
macro_rules! features {
    ($($name:ident = $bit:literal, $since:literal, $meaning:literal, $more:literal;)+) => {
        bitflags! {
            /// Features of the driver (answer of GET_FEATURES) or of a device
            /// ([`DevInfo::flags`](crate::DevInfo::flags)).
            ///
            /// ADD_DEV drops bits that the driver does not know or does not grant and adds those
            /// that it forces: always look at the flags that came back.
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
            pub struct Features: u64 {
                $(
                    #[doc = $meaning]
                    #[doc = ""]
                    #[doc = concat!("Since ", $since, ". ", $more)]
                    const $name = 1 << $bit;
                )+
            }
        }

        /// All features, in the order of their bits.
        pub const FEATURES: &[FeatureInfo] = &[$(FeatureInfo {
            flag: Features::$name,
            name: stringify!($name),
            since: $since,
            meaning: $meaning,
        }),+];
    };
}

features! {
    SUPPORT_ZERO_COPY = 0, "6.15",
        "The server can register a request's pages in its ring and do I/O on them without a copy.",
        "Not for unprivileged devices. The bit exists since 6.0, but older kernels mask it out.";
    URING_CMD_COMP_IN_TASK = 1, "6.0",
        "Requests are handed over in the context of the server's thread.",
        "ADD_DEV always sets it.";
    NEED_GET_DATA = 2, "6.0",
        "The server gives the buffer for a write only when the write has arrived.",
        "Dropped together with USER_COPY, SUPPORT_ZERO_COPY, AUTO_BUF_REG or BATCH_IO.";
    USER_RECOVERY = 3, "6.1",
        "The disk outlives its server, and its requests wait for a new one.",
        "Requests that the dead server held fail. Dropped on unprivileged devices.";
    USER_RECOVERY_REISSUE = 4, "6.1",
        "Requests that a dead server held are sent again to the new one.",
        "Needs USER_RECOVERY; a request can be executed twice.";
    UNPRIVILEGED_DEV = 5, "6.3",
        "Users without CAP_SYS_ADMIN can create and serve their own disks.",
        "Dropped if the caller has CAP_SYS_ADMIN.";
    CMD_IOCTL_ENCODE = 6, "6.4",
        "Commands are numbered as ioctls are, with type, direction and size.",
        "ADD_DEV always sets it.";
    USER_COPY = 7, "6.5",
        "The server moves the data itself by reading and writing the device's character node.",
        "Not for unprivileged devices.";
    ZONED = 8, "6.6",
        "The disk has zones that are written sequentially.",
        "Needs USER_COPY or SUPPORT_ZERO_COPY. Reported even by kernels built without zoned disks.";
    USER_RECOVERY_FAIL_IO = 9, "6.13",
        "The disk outlives its server, and its requests fail until there is a new one.",
        "Needs USER_RECOVERY.";
    UPDATE_SIZE = 10, "6.16",
        "The size of a running disk can be changed.",
        "The command works whether or not the device asked for the flag.";
    AUTO_BUF_REG = 11, "6.16",
        "The driver registers a request's pages in the server's ring by itself.",
        "Not for unprivileged devices.";
    QUIESCE = 12, "6.16",
        "A running disk can be taken from its server and given to another.",
        "Needs USER_RECOVERY.";
    PER_IO_DAEMON = 13, "6.16",
        "Every tag of a queue can be served by a thread of its own.",
        "ADD_DEV always sets it, except together with BATCH_IO.";
    BUF_REG_OFF_DAEMON = 14, "6.17",
        "A request's pages can be registered from any thread.",
        "ADD_DEV always sets it.";
    BATCH_IO = 15, "7.0",
        "Requests are received and answered many at a time.",
        "Replaces the commands for single tags on that device.";
    INTEGRITY = 16, "7.0",
        "Requests can carry integrity data next to their data.",
        "Needs USER_COPY and a kernel built with integrity support.";
    SAFE_STOP_DEV = 17, "7.0",
        "A disk can be stopped on the condition that nobody has it open.",
        "ADD_DEV always sets it.";
    NO_AUTO_PART_SCAN = 18, "7.0",
        "The kernel does not look for partitions when the disk starts.",
        "";
    SHMEM_ZC = 19, "7.1",
        "Clients that do I/O from memory shared with the server have it served without a copy.",
        "The clients must use O_DIRECT.";
    IO_DESC_SIZE = 20, "7.3",
        "The server chooses the distance between request descriptors.",
        "See DevInfo::io_desc_size.";
}
