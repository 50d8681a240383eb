//! `oxublk trace`

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use oxublk::{DeviceId, QueueId, Tag, host};
use oxublk_cli::args::TraceArgs;
use oxublk_cli::exit::{Exit, Failure, Outcome};
use oxublk_diag::facts::{Gap, Snapshot};
use oxublk_diag::observe::{Observer, Options as Look};
use oxublk_diag::trace::event::Event;
use oxublk_diag::trace::filter::Filter;
use oxublk_diag::trace::follow::{Follower, Options, Said, Summary};
use oxublk_diag::trace::live::{Live, now_ns};
use oxublk_diag::trace::record::{self, Header, Line};
use oxublk_diag::trace::session;
use oxublk_diag::trace::{order, render, seed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::output::Output;

/// How often the kernel is asked for events. Longer makes the output late, shorter costs more.
const EVERY: Duration = Duration::from_millis(50);
/// So many lines are printed at once.
const BATCH: usize = 200;

pub(crate) fn run(arguments: &TraceArgs, output: &Output) -> Outcome<Exit> {
    let summary = match (&arguments.replay, arguments.device) {
        (Some(path), _) => replay(path, arguments, output)?,
        (None, Some(device)) => trace(device, arguments, output)?,
        (None, None) => return Err(Failure::new(Exit::Usage, "no device")),
    };
    Ok(match summary {
        Summary { stuck: 1.., .. } => Exit::Stuck,
        Summary { refused: 1.., .. } | Summary { wrong: 1.., .. } => Exit::Warnings,
        _ => Exit::Success,
    })
}

fn options(arguments: &TraceArgs) -> Options {
    Options {
        filter: Filter {
            slower_than: arguments.slower_than,
            operations: arguments.op.iter().map(|op| op.name().to_owned()).collect(),
            sectors: arguments.sectors.clone(),
            queue: arguments.queue.map(QueueId),
            tag: arguments.tag.map(Tag),
        },
        stuck_after: arguments.stuck_after,
    }
}

fn follower(arguments: &TraceArgs, header: &Header) -> Follower {
    Follower::new(
        options(arguments),
        header.start_ns,
        header.expected,
        &header.seeds,
        header.sure,
    )
}

/// Lines for programs that are not of a request.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Frame<'a> {
    Start(&'a Header),
    Summary(&'a Summary),
}

/// Prints what is told, a batch at a time. Knows when nobody reads any more.
struct Printer {
    json: bool,
    quiet: bool,
    start_ns: u64,
    count: Option<u64>,
    closed: bool,
}

impl Printer {
    fn new(arguments: &TraceArgs, output: &Output, start_ns: u64) -> Self {
        Self {
            json: output.json,
            quiet: arguments.quiet,
            start_ns,
            count: arguments.count,
            closed: false,
        }
    }

    /// Whether there is nothing more to do.
    fn done(&self, follower: &Follower) -> bool {
        self.closed || self.count.is_some_and(|count| follower.requests() >= count)
    }

    fn said(&mut self, said: &mut Vec<Said>) -> Outcome<()> {
        let mut text = String::new();
        for said in said.drain(..) {
            let request = matches!(said, Said::Request(_));
            match (self.json, self.quiet) {
                (_, true) if request => {}
                (true, _) => text.push_str(&json(&said)?),
                (false, _) => text.push_str(&render::said(&said, self.start_ns)),
            }
        }
        self.print(&text)
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Outcome<()> {
        if self.json {
            return self.print(&json(frame)?);
        }
        match frame {
            Frame::Start(_) => Ok(()),
            Frame::Summary(summary) => self.print(&render::summary(summary, self.start_ns)),
        }
    }

    fn print(&mut self, text: &str) -> Outcome<()> {
        if text.is_empty() || self.closed {
            return Ok(());
        }
        let mut stdout = io::stdout();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written.map_err(|error| Failure::io("cannot write to stdout", &error)),
        }
    }
}

fn json<T: Serialize>(document: &T) -> Outcome<String> {
    let line = serde_json::to_string(document);
    line.map(|line| line + "\n")
        .map_err(|error| Failure::io("cannot make JSON", &error.into()))
}

/// Something said on the way, for people; also with `--json`.
fn note(text: &str) {
    // There is nobody left to tell if this fails.
    let _ = writeln!(io::stderr(), "{text}");
}

fn replay(path: &Path, arguments: &TraceArgs, output: &Output) -> Outcome<Summary> {
    let cannot = |error: &io::Error| match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
            let message = format!(
                "{} is not what `trace --output` writes: {error}",
                path.display()
            );
            Failure::new(Exit::Usage, message)
        }
        _ => Failure::io(format!("cannot read {}", path.display()), error),
    };
    let file = File::open(path).map_err(|error| cannot(&error))?;
    let mut file = BufReader::new(file);
    let header = record::header(&mut file).map_err(|error| cannot(&error))?;
    let mut printer = Printer::new(arguments, output, header.start_ns);
    printer.frame(&Frame::Start(&header))?;
    missing(&header.gaps);
    let mut follower = follower(arguments, &header);
    let (mut said, mut last_ns, mut end) = (Vec::new(), header.start_ns, None);
    for line in record::lines(file) {
        match line.map_err(|error| cannot(&error))? {
            Line::Event(event) => {
                if event.at_ns > last_ns.saturating_add(order::PATIENCE_NS) {
                    follower.tick(event.at_ns, &mut said);
                    last_ns = event.at_ns;
                }
                follower.push(&event, &mut said);
                if said.len() >= BATCH {
                    printer.said(&mut said)?;
                }
            }
            Line::End { end_ns, lost } => end = Some((end_ns, lost)),
        }
        if printer.done(&follower) {
            break;
        }
    }
    printer.said(&mut said)?;
    let (end_ns, lost) = end.unwrap_or((last_ns, 0));
    let summary = follower.finish(end_ns, lost);
    printer.frame(&Frame::Summary(&summary))?;
    Ok(summary)
}

/// Signals that end the trace, as something to wait for.
struct Stop(UnixStream);

impl Stop {
    fn new() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self(read))
    }

    /// Waits for a signal, for so long at most; says whether one came.
    fn wait(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, limit.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

fn trace(device: DeviceId, arguments: &TraceArgs, output: &Output) -> Outcome<Summary> {
    let exists = host::devices()?.contains(&device);
    if !exists && !arguments.wait {
        return Err(
            Failure::new(Exit::NoSuchDevice, format!("there is no device {device}"))
                .with_hint("`oxublk list` shows what there is; --wait traces one that comes"),
        );
    }
    let file = arguments.output.as_deref().map(create).transpose()?;
    let stop = Stop::new().map_err(|error| Failure::io("cannot wait for signals", &error))?;
    let mut live = Live::start(device, arguments.raw, arguments.buffer.0).map_err(failure)?;
    let deadline = arguments.duration.map(|duration| Instant::now() + duration);
    note(&format!(
        "tracing {}: Ctrl-C ends",
        device.block_path().display()
    ));
    if arguments.verbose {
        live.definitions().iter().for_each(|line| note(line));
    }
    let look = (exists && !arguments.no_snapshot).then(|| start_look(device));
    let (snapshot, stopped) = wait_for_look(&mut live, look, &stop, deadline)?;
    let mut header = header(device, &live, snapshot.as_ref());
    // Of a device that is not there nothing is under way.
    header.sure |= !exists;
    missing(&header.gaps);
    let mut run = Run {
        printer: Printer::new(arguments, output, header.start_ns),
        follower: follower(arguments, &header),
        file,
        said: Vec::new(),
    };
    run.printer.frame(&Frame::Start(&header))?;
    run.keep(&header)?;
    if !stopped {
        run.follow(&mut live, &stop, deadline)?;
    }
    run.finish(live)
}

/// A file that only its owner reads: the kernel's addresses are in it.
fn create(path: &Path) -> Outcome<BufWriter<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.map(BufWriter::new)
        .map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))
}

fn failure(error: session::Error) -> Failure {
    let kind = match error.kind {
        ErrorKind::PermissionDenied => Exit::NoPermission,
        ErrorKind::NotConnected => Exit::Busy,
        ErrorKind::NotFound => Exit::NoDriver,
        _ => Exit::Failure,
    };
    Failure::new(kind, error.what).with_hint(error.remedy)
}

fn missing(gaps: &[Gap]) {
    for gap in gaps {
        note(&format!("not seen: {} ({})", gap.what, gap.remedy));
    }
}

fn start_look(device: DeviceId) -> Receiver<Snapshot> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let look = Look {
            devices: vec![device],
            ..Look::default()
        };
        // Nobody waits for it any more when the trace was ended meanwhile.
        let _ = sender.send(Observer::new(look).look());
    });
    receiver
}

/// Reads events until the look at what was under way is done, a signal comes, or the time is over.
fn wait_for_look(
    live: &mut Live,
    look: Option<Receiver<Snapshot>>,
    stop: &Stop,
    deadline: Option<Instant>,
) -> Outcome<(Option<Snapshot>, bool)> {
    let Some(look) = look else {
        return Ok((None, false));
    };
    let mut stopped = false;
    loop {
        match look.try_recv() {
            Ok(snapshot) => return Ok((Some(snapshot), stopped)),
            Err(TryRecvError::Disconnected) => return Ok((None, stopped)),
            Err(TryRecvError::Empty) => {}
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) && !stopped {
            live.stop();
            stopped = true;
        }
        live.read()
            .map_err(|error| Failure::io("cannot read the trace", &error))?;
        if stop.wait(EVERY) {
            return Ok((None, true));
        }
    }
}

fn header(device: DeviceId, live: &Live, snapshot: Option<&Snapshot>) -> Header {
    let start_ns = live.start_ns();
    let mut gaps = live.gaps().to_vec();
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let seeds = snapshot
        .map(|snapshot| seed::seeds(snapshot, device, start_ns))
        .unwrap_or_default();
    let kernel = |gap: &&Gap| gap.layer == oxublk_diag::facts::Layer::Kernel;
    let blind = snapshot.and_then(|snapshot| snapshot.gaps.iter().find(kernel));
    gaps.extend(blind.map(|gap| Gap {
        what: format!(
            "when and where the requests began that were under way: {}",
            gap.what
        ),
        ..gap.clone()
    }));
    Header {
        oxublk_trace: record::VERSION,
        device,
        release,
        start_ns,
        expected: snapshot
            .map(|snapshot| seed::expected(snapshot, device))
            .unwrap_or_default(),
        seeds,
        sure: snapshot.is_some() && blind.is_none(),
        gaps,
    }
}

/// A trace that goes on.
struct Run {
    printer: Printer,
    follower: Follower,
    file: Option<BufWriter<File>>,
    said: Vec<Said>,
}

impl Run {
    fn done(&self) -> bool {
        self.printer.done(&self.follower)
    }

    fn follow(&mut self, live: &mut Live, stop: &Stop, deadline: Option<Instant>) -> Outcome<()> {
        loop {
            let any = live
                .read()
                .map_err(|error| Failure::io("cannot read the trace", &error))?;
            self.take(live.take())?;
            // While there is more to read, what does not move may have moved.
            if !any {
                self.follower.tick(now_ns(), &mut self.said);
            }
            self.printer.said(&mut self.said)?;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = if any {
                Duration::ZERO
            } else {
                left.unwrap_or(EVERY).min(EVERY)
            };
            if self.done() || left.is_some_and(|left| left.is_zero()) || stop.wait(wait) {
                return Ok(());
            }
        }
    }

    fn take(&mut self, events: impl Iterator<Item = Event>) -> Outcome<()> {
        for event in events {
            if self.done() {
                break;
            }
            self.keep(&event)?;
            self.follower.push(&event, &mut self.said);
            if self.said.len() >= BATCH {
                self.printer.said(&mut self.said)?;
            }
        }
        self.printer.said(&mut self.said)?;
        match &mut self.file {
            Some(file) => file
                .flush()
                .map_err(|error| Failure::io("cannot write the file of --output", &error)),
            None => Ok(()),
        }
    }

    fn keep<T: Serialize>(&mut self, line: &T) -> Outcome<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        record::write(file, line)
            .map_err(|error| Failure::io("cannot write the file of --output", &error))
    }

    fn finish(mut self, live: Live) -> Outcome<Summary> {
        live.stop();
        let end_ns = now_ns();
        let (events, lost) = live
            .finish()
            .map_err(|error| Failure::io("cannot read the rest of the trace", &error))?;
        self.take(events.into_iter())?;
        self.keep(&Line::End { end_ns, lost })?;
        self.take(std::iter::empty())?;
        let summary = self.follower.finish(end_ns, lost);
        self.printer.frame(&Frame::Summary(&summary))?;
        Ok(summary)
    }
}
