//! Runs the work in worker processes. If a worker aborts or hangs, that is reported, and a new worker
//! continues.
//!
//! A worker writes messages to its standard output, one on each line. It announces each program or call
//! before it starts, so that the number of the one that ends the process is known.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A message of a worker.
pub enum WorkerMessage {
    /// The number of the program or call that begins now.
    At(u64),
    /// The text of that call.
    Doing(String),
    /// A fault that was found in it: its kind and its text.
    Fault(String, String),
    /// A count of something.
    Count(String, f64),
}

const BREAK: char = '\u{1}';

impl WorkerMessage {
    /// Writes the message to standard output, and flushes it.
    pub fn send(&self) {
        let text = match self {
            WorkerMessage::At(number) => format!("at {number}"),
            WorkerMessage::Doing(text) => format!("doing {text}"),
            WorkerMessage::Fault(kind, text) => format!("fault {kind}{BREAK}{BREAK}{text}"),
            WorkerMessage::Count(name, count) => format!("count {count} {name}"),
        };
        let mut out = std::io::stdout().lock();
        // An error means that the supervisor has ended, so there is nobody to receive the message.
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

/// A fault, as a worker reported it.
pub struct ReportedFault {
    pub number: u64,
    pub kind: String,
    pub text: String,
}

/// The programs or calls that workers are to run.
pub struct WorkerJob<'a> {
    /// The arguments of a worker for a first number and a count.
    pub arguments: &'a dyn Fn(u64, u64) -> Vec<String>,
    pub first: u64,
    pub count: u64,
    /// The limit of the workers' address space, on systems that can limit it.
    pub memory: Option<u64>,
    /// The time that one program or call may take.
    pub patience: Duration,
}

/// Runs a job in as many processes as necessary.
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
                "hang" => format!("{doing}\n  did not end within {:?}", work.patience),
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

/// Reads a worker's standard error. The last line that is not part of a backtrace says why the worker ended.
fn errors_of(child: &mut Child) -> Option<JoinHandle<String>> {
    let errors = child.stderr.take()?;
    Some(thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            // The message of a panic stands before its backtrace.
            let is_trace =
                line.starts_with("  ") || line.starts_with("note:") || line.starts_with("stack backtrace");
            if !is_trace && !line.is_empty() {
                last = line;
            }
        }
        last
    }))
}

/// Measures how long a program or call takes: in the worker's processor time if the system reports it, so
/// that a busy machine does not look like a hang.
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
        // A deadlock uses no processor time, so the elapsed time is limited, too.
        now.saturating_sub(before) > patience || self.start.elapsed() > patience * 12
    }
}

/// The processor time that a process has used, which Linux counts in hundredths of a second.
fn processor_time(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}
