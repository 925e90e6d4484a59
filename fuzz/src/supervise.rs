//! Runs the work in a process of its own, which may abort or hang, and goes on after it.
//!
//! The worker says on its standard output what it is about to do, a line each, so that whatever ends it has a
//! number.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a worker tells.
pub enum WorkerMessage {
    /// The number of what begins now.
    At(u64),
    /// What it is.
    Doing(String),
    /// A fault of the number that began last: its kind and text.
    Fault(String, String),
    /// A count of something.
    Count(String, f64),
}

const BREAK: char = '\u{1}';

impl WorkerMessage {
    /// Writes the line to standard output, at once.
    pub fn tell(&self) {
        let text = match self {
            WorkerMessage::At(number) => format!("at {number}"),
            WorkerMessage::Doing(text) => format!("doing {text}"),
            WorkerMessage::Fault(kind, text) => format!("fault {kind}{BREAK}{BREAK}{text}"),
            WorkerMessage::Count(name, count) => format!("count {count} {name}"),
        };
        let mut out = std::io::stdout().lock();
        // Nobody listens any more: then there is nobody to tell it.
        let _ = writeln!(out, "{}", text.replace('\n', &BREAK.to_string()));
        let _ = out.flush();
    }

    fn read(text: &str) -> Option<WorkerMessage> {
        let (word, rest) = text.split_once(' ')?;
        Some(match word {
            "at" => WorkerMessage::At(rest.parse().ok()?),
            "doing" => WorkerMessage::Doing(rest.replace(BREAK, "\n")),
            "fault" => {
                let (kind, text) = rest.split_once(&format!("{BREAK}{BREAK}"))?;
                WorkerMessage::Fault(kind.to_owned(), text.replace(BREAK, "\n"))
            }
            "count" => {
                let (count, name) = rest.split_once(' ')?;
                WorkerMessage::Count(name.to_owned(), count.parse().ok()?)
            }
            _ => return None,
        })
    }
}

/// A fault that was found.
pub struct ReportedFault {
    pub number: u64,
    pub kind: String,
    pub text: String,
}

/// A part of the work: the arguments of the worker for the numbers from the first on.
pub struct WorkerJob<'a> {
    pub arguments: &'a dyn Fn(u64, u64) -> Vec<String>,
    pub first: u64,
    pub count: u64,
    /// So much address space the worker has, on systems that can limit it.
    pub memory: Option<u64>,
    /// So long one number may take.
    pub patience: Duration,
}

/// Does all of it, in as many processes as it takes.
pub fn run(
    work: &WorkerJob,
    mut found: impl FnMut(ReportedFault),
    mut count: impl FnMut(String, f64),
) -> std::io::Result<()> {
    let end = work.first + work.count;
    let mut next = work.first;
    while next < end {
        let mut child = spawn(work, &(work.arguments)(next, end - next))?;
        let (lines, errors) = (listen(&mut child), errors_of(&mut child));
        let (mut at, mut doing, mut ended) = (None, String::new(), None);
        let mut watch = Watch::new();
        loop {
            match lines.recv_timeout(Duration::from_secs(1)) {
                Ok(WorkerMessage::At(number)) => {
                    (at, doing) = (Some(number), String::new());
                    watch = Watch::new();
                }
                Ok(WorkerMessage::Doing(text)) => doing = text,
                Ok(WorkerMessage::Fault(kind, text)) => {
                    found(ReportedFault { number: at.unwrap_or(next), kind, text })
                }
                Ok(WorkerMessage::Count(name, number)) => count(name, number),
                Err(RecvTimeoutError::Timeout) => {
                    if watch.is_over(child.id(), work.patience) {
                        child.kill()?;
                        ended = Some("hang");
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.wait()?;
        let number = at.unwrap_or(next);
        if let (Some(kind), _) | (None, Some(kind)) = (ended, (!status.success()).then_some("abort")) {
            let text = match kind {
                "hang" => format!("{doing}\n  after {:?} nothing had happened", work.patience),
                _ => {
                    let said = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
                    format!("{doing}\n  the process ended: {status}; {said}")
                }
            };
            found(ReportedFault { number, kind: kind.to_owned(), text });
            next = number + 1;
        } else {
            next = end;
        }
    }
    Ok(())
}

fn spawn(work: &WorkerJob, arguments: &[String]) -> std::io::Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = match work.memory {
        Some(bytes) if cfg!(unix) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -v {} 2>/dev/null; exec \"$@\"", bytes / 1024), "sh"]);
            command.arg(program);
            command
        }
        _ => Command::new(program),
    };
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

fn listen(child: &mut Child) -> Receiver<WorkerMessage> {
    let (send, receive) = channel();
    if let Some(out) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(line) = WorkerMessage::read(&line)
                    && send.send(line).is_err()
                {
                    return;
                }
            }
        });
    }
    receive
}

/// The last words of a worker: why it ended.
fn errors_of(child: &mut Child) -> Option<JoinHandle<String>> {
    let errors = child.stderr.take()?;
    Some(thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            // A backtrace says less than what is in front of it.
            let is_trace =
                line.starts_with("  ") || line.starts_with("note:") || line.starts_with("stack backtrace");
            if !is_trace && !line.is_empty() {
                last = line;
            }
        }
        last
    }))
}

/// How long something takes: by the processor's time where the system tells it, so that a busy machine is no
/// hang.
struct Watch {
    start: Instant,
    used: Option<Duration>,
}

impl Watch {
    fn new() -> Watch {
        Watch { start: Instant::now(), used: None }
    }

    fn is_over(&mut self, process: u32, patience: Duration) -> bool {
        let Some(now) = processor_time(process) else { return self.start.elapsed() > patience };
        let before = *self.used.get_or_insert(now);
        // What waits for something that never comes uses no time at all.
        now.saturating_sub(before) > patience || self.start.elapsed() > patience * 12
    }
}

/// The time that a process has used, in Linux's usual hundredths of a second.
fn processor_time(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}
