//! Servers that cannot be killed: what they leave needs a reboot, so that each has a guest of its own.

use crate::support::faulty::{Faulty, Provoke, holds, provoke};
use crate::support::{Scene, Test};
use anyhow::Result;
use oxublk_diag::finding::Cause;

/// The origin's scene: START_DEV is the server's own command, its scan for partitions is the request, and the
/// handler locks itself up. On 6.12 the server's end would wait for the command, which waits for the server's end.
pub(crate) const INSIDE: Scene = Scene {
    name: "faults-inside",
    needs: "timeout=200",
    tests: &[Test::new("the_server_itself_waits_for_its_start", || {
        stays(
            "deadlock",
            "--start-inside",
            Provoke::Nothing,
            Cause::HandlerLocked,
        )
    })
    .hopeless()],
};

/// Past the cache the server waits for its own disk deaf to signals.
pub(crate) const OWN_DEVICE: Scene = Scene {
    name: "faults-own-device",
    needs: "timeout=200",
    tests: &[
        Test::new("the_server_reads_its_own_disk_past_the_cache", || {
            stays("own-device-direct", "", Provoke::Reads, Cause::OwnDevice)
        })
        .hopeless(),
    ],
};

/// Two threads fetch the tags of a queue. On 6.12 the driver does not take the first one's tags back when the server dies (it
/// complains of them instead), and the device may never be deleted; on 7.3 it can be.
pub(crate) const SPLIT_FETCH: Scene = Scene {
    name: "faults-split-fetch",
    needs: "timeout=200",
    tests: &[Test::new("two_threads_fetch_and_one_answers", || {
        stays("split-fetch", "", Provoke::Everywhere, Cause::ForeignThread)
    })
    .hopeless()],
};

fn stays(fault: &str, options: &str, how: Provoke, cause: Cause) -> Result<()> {
    let mut server = Faulty::start(fault, options)?;
    let clients = provoke(&mut server, how)?;
    let title = format!("{fault} {options}");
    let told = holds(title.trim_end(), Some(server.id), cause);
    // Dropped, they are killed and waited for, which here would be in vain.
    std::mem::forget((server, clients));
    told.map(drop)
}
