//! `oxublk info`

use std::fmt::Write as _;
use std::time::Duration;

use oxublk::{Control, DeviceId, host};
use oxublk_cli::exit::Outcome;
use oxublk_cli::live;
use oxublk_cli::report::{DiskParams, Info, Server, block_path, char_path, granted};
use oxublk_cli::size::Size;
use oxublk_cli::state::{Description, Found, RunDir};
use oxublk_cli::text::{age, metrics, yes_no};
use oxublk_diag::facts::{Pid, Recorded};
use oxublk_diag::observe;

use crate::output::Output;

/// How long the driver may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// More requests of a stuck server say no more.
const MAX_LINES: usize = 10;

pub(crate) fn run(id: DeviceId, run_dir: &RunDir, output: &Output) -> Outcome<()> {
    let info = look(id, run_dir)?;
    output.result(&info, text)?;
    output.notes(&info.notes);
    Ok(())
}

fn look(id: DeviceId, run_dir: &RunDir) -> Outcome<Info> {
    let mut notes = Vec::new();
    let mut control = Control::open()?;
    // Some answers wait while the device is being stopped.
    control.set_deadline(PATIENCE);
    let info = control.info(id)?;
    let params = control
        .params(id)
        .map_err(|error| notes.push(error.to_string()))
        .ok();
    let holders = host::holders(id).map_err(|error| notes.push(error.to_string()));
    let found = run_dir.read(id);
    if let Found::Unusable(reason) = &found {
        notes.push(format!("ignored {reason}"));
    }
    let description = found.description().cloned();
    let server = Server::of(Some(&info), description.as_ref());
    if server.as_ref().is_none_or(|server| !server.running) {
        notes.push(format!(
            "the device has no server; `oxublk del {id}` removes it"
        ));
    }
    let metrics = match found.server().map(|_| live::ask(&run_dir.socket_path(id))) {
        Some(Ok(live)) => live.map(|live| live.metrics),
        Some(Err(error)) => {
            notes.push(format!("the server does not say what it did: {error}"));
            notes.extend(server.iter().flat_map(|server| recorded(server.pid, id)));
            None
        }
        None => None,
    };
    Ok(Info {
        id: id.0,
        block_path: block_path(id),
        char_path: char_path(id),
        state: info.state.to_string(),
        size_bytes: host::size_bytes(id),
        queues: info.queues,
        depth: info.depth,
        features: granted(info.features),
        // Parameters that were never set are all zero.
        params: params
            .filter(|params| params.types != 0)
            .map(|params| DiskParams::from(&params)),
        server,
        owner_uid: info.owner_uid,
        owner_gid: info.owner_gid,
        uptime_seconds: description
            .as_ref()
            .map(|description| description.age_seconds()),
        description,
        holders: holders.unwrap_or_default().iter().map(Into::into).collect(),
        metrics,
        notes,
    })
}

/// What a server that does not answer wrote down of its requests.
fn recorded(pid: u32, id: DeviceId) -> Vec<String> {
    let recorder = match observe::recorder(Pid(pid), id) {
        Ok(Some(recorder)) => recorder,
        Ok(None) => return Vec::new(),
        Err(gap) => return vec![gap.what],
    };
    let line = |request: &Recorded| {
        format!(
            "in its flight recorder: queue {} tag {}: {} of {} bytes at sector {}, {}, reaped {} ago",
            request.queue,
            request.tag,
            request.operation,
            request.bytes,
            request.sector,
            request.station,
            age(request.age_ms / 1000)
        )
    };
    let mut lines: Vec<String> = recorder.requests.iter().take(MAX_LINES).map(line).collect();
    match recorder.requests.len() {
        0 => lines.push("in its flight recorder: no request waits for its answer".to_owned()),
        all if all > MAX_LINES => lines.push(format!("and {} more", all - MAX_LINES)),
        _ => {}
    }
    lines
}

fn text(info: &Info) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("device", info.id.to_string());
    line("block device", info.block_path.clone());
    line("server's side", info.char_path.clone());
    line("state", info.state.clone());
    line(
        "size",
        info.size_bytes
            .map_or("no disk".to_owned(), |size| Size(size).both()),
    );
    line(
        "queues",
        format!("{} of {} requests", info.queues, info.depth),
    );
    if let Some(params) = &info.params {
        params_lines(params, &mut line);
    }
    line("server", server(info));
    if let Some(bytes) = info.server.as_ref().and_then(|server| server.memory_bytes) {
        line(
            "memory",
            format!("{} of the server's own", Size(bytes).human()),
        );
    }
    origin_lines(info, &mut line);
    holder_lines(info, &mut line);
    if let Some(done) = &info.metrics {
        let in_flight: usize = done.queues.iter().map(|queue| queue.in_flight.len()).sum();
        let stuck = match (done.stuck_now, done.stuck_total) {
            (Some(now), Some(total)) => format!(", {now} of them stuck, {total} so far"),
            _ => String::new(),
        };
        line("in flight", format!("{in_flight} requests{stuck}"));
        let shares = |made: &Description| !made.shared_memory.is_empty();
        if info.description.as_ref().is_some_and(shares) {
            let bytes = Size(done.shared_bytes).human();
            let requests = done.shared_requests;
            line(
                "from there",
                format!("{requests} requests, {bytes}, not copied by the kernel"),
            );
        }
        text.push('\n');
        text.push_str(&metrics(done));
    }
    text
}

/// Who made it, and with what.
fn origin_lines(info: &Info, line: &mut impl FnMut(&str, String)) {
    line(
        "made by",
        format!("user {}, group {}", info.owner_uid, info.owner_gid),
    );
    if let Some(made) = &info.description {
        let since = age(info.uptime_seconds.unwrap_or(0));
        line(
            "target",
            format!(
                "{}, oxublk {}, {since} ago",
                made.target, made.oxublk_version
            ),
        );
        if let Some(path) = &made.path {
            line("file", path.clone());
        }
        if let Some(io) = &made.io {
            let way = if io.direct { "direct" } else { "buffered" };
            line("file I/O", format!("{way}: {}", io.why));
        }
        if let Some(data) = &made.data_path {
            line("data path", format!("{}: {}", data.path, data.why));
        }
        for (index, memory) in made.shared_memory.iter().enumerate() {
            let name = if index == 0 { "shared memory" } else { "" };
            let size = Size(memory.bytes).human();
            line(
                name,
                format!("{}, {size}, slot {}", memory.file.display(), memory.slot),
            );
        }
        if made.options.threads_per_queue > 1 {
            line(
                "threads",
                format!("{} a queue", made.options.threads_per_queue),
            );
        }
        let asked = (made.options.queues, made.options.depth);
        if asked != (info.queues, info.depth) {
            line(
                "asked for",
                format!("{} queues of {} requests", asked.0, asked.1),
            );
        }
        let features = made.requested_features.join(", ");
        line(
            "requested",
            if features.is_empty() {
                "no features".to_owned()
            } else {
                features
            },
        );
    }
    for (index, feature) in info.features.iter().enumerate() {
        let name = if index == 0 { "granted" } else { "" };
        line(name, format!("{}: {}", feature.name, feature.meaning));
    }
}

fn holder_lines(info: &Info, line: &mut impl FnMut(&str, String)) {
    if info.holders.is_empty() {
        line("in use", "no".to_owned());
    }
    for (index, holder) in info.holders.iter().enumerate() {
        line(if index == 0 { "in use" } else { "" }, holder.to_string());
    }
}

fn params_lines(params: &DiskParams, line: &mut impl FnMut(&str, String)) {
    let size = |bytes: u64| Size(bytes).human();
    let blocks = (
        size(params.logical_block_bytes),
        size(params.physical_block_bytes),
    );
    line(
        "blocks",
        format!("{} logical, {} physical", blocks.0, blocks.1),
    );
    let optimal = params
        .optimal_io_bytes
        .map_or(String::new(), |n| format!(", {} is best", size(n)));
    line(
        "largest I/O",
        format!("{}{optimal}", size(params.max_io_bytes)),
    );
    line("read-only", yes_no(params.read_only).to_owned());
    let cache = match (params.volatile_cache, params.fua) {
        (false, _) => "none: an answered write stays".to_owned(),
        (true, fua) => format!("volatile; FUA: {}", yes_no(fua)),
    };
    line("write cache", cache);
    let discard = match params.discard_granularity_bytes {
        Some(unit) => {
            format!(
                "in units of {}, up to {}",
                size(unit.into()),
                size(params.max_discard_bytes)
            )
        }
        None => "no".to_owned(),
    };
    line("discard", discard);
    let zeroes = params.max_write_zeroes_bytes;
    line(
        "write zeroes",
        if zeroes == 0 {
            "no".to_owned()
        } else {
            format!("up to {}", size(zeroes))
        },
    );
    if params.rotational {
        line("rotational", "yes".to_owned());
    }
}

fn server(info: &Info) -> String {
    match &info.server {
        None => "none".to_owned(),
        Some(server) => match &server.command {
            Some(command) => format!("process {} ({command})", server.pid),
            None => format!("process {}, which is gone", server.pid),
        },
    }
}
