//! What a thread costs: CPU time, instructions and system calls, each where the machine can tell.
//!
//! CPU time comes from `/proc`, which every kernel has. Instructions need a hardware counter, which
//! most virtual machines lack; system calls need a tracepoint, and so root. What cannot be had is
//! reported as such, never estimated.

use std::fs;
use std::path::Path;
use std::time::Duration;

use perf_event::events::{Hardware, Tracepoint};
use perf_event::{Builder, Counter};

/// Names a thread of this process to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadId(i32);

impl ThreadId {
    /// The calling thread; `None` where `/proc` is not mounted.
    pub fn current() -> Option<ThreadId> {
        let link = fs::read_link("/proc/thread-self").ok()?;
        link.file_name()?.to_str()?.parse().ok().map(ThreadId)
    }

    /// The thread of this process that is called `name` (its first 15 bytes).
    pub fn named(name: &str) -> Option<ThreadId> {
        let name = name.get(..15).unwrap_or(name);
        let threads = fs::read_dir("/proc/self/task").ok()?;
        let mut numbers =
            threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let called = |number: &i32| {
            let comm = fs::read_to_string(format!("/proc/self/task/{number}/comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        numbers.find(called).map(ThreadId)
    }

    /// How long the thread has been on a CPU, in all; `None` when it is gone.
    pub fn cpu_time(self) -> Option<Duration> {
        let text = fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.0)).ok()?;
        parse_schedstat(&text)
    }
}

/// The first number of `schedstat`: nanoseconds on a CPU.
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Counts what one thread does between [`Meter::start`] and [`Meter::stop`].
#[derive(Debug)]
pub struct Meter {
    thread: Option<ThreadId>,
    instructions: Option<Counter>,
    system_calls: Option<Counter>,
    cpu_start: Option<Duration>,
    cpu: Option<Duration>,
    instructions_seen: Option<u64>,
    system_calls_seen: Option<u64>,
}

impl Meter {
    /// A meter for `thread`; what the machine cannot count stays unknown.
    pub fn new(thread: Option<ThreadId>) -> Meter {
        let instructions = thread.and_then(|thread| {
            let mut builder = Builder::new(Hardware::INSTRUCTIONS);
            builder.observe_pid(thread.0).include_kernel().build().ok()
        });
        let system_calls = thread.and_then(|thread| {
            let mut builder = Builder::new(Tracepoint::with_id(sys_enter()?));
            builder.observe_pid(thread.0).include_kernel().build().ok()
        });
        Meter {
            thread,
            instructions,
            system_calls,
            cpu_start: None,
            cpu: None,
            instructions_seen: None,
            system_calls_seen: None,
        }
    }

    /// Starts the measured window: CPU time and instructions.
    pub fn start(&mut self) {
        self.cpu_start = self.thread.and_then(ThreadId::cpu_time);
        enable(self.instructions.as_mut());
    }

    /// Ends the measured window.
    pub fn stop(&mut self) {
        let now = self.thread.and_then(ThreadId::cpu_time);
        self.cpu = now.zip(self.cpu_start).map(|(now, start)| now.saturating_sub(start));
        self.instructions_seen = disable(self.instructions.as_mut());
    }

    /// Starts counting system calls. That slows every system call of the machine down, so it has a
    /// window of its own.
    pub fn start_system_calls(&mut self) {
        enable(self.system_calls.as_mut());
    }

    /// Stops counting system calls.
    pub fn stop_system_calls(&mut self) {
        self.system_calls_seen = disable(self.system_calls.as_mut());
    }

    /// CPU time spent in the measured window.
    pub fn cpu(&self) -> Option<Duration> {
        self.cpu
    }

    /// Instructions in the measured window, kernel included.
    pub fn instructions(&self) -> Option<u64> {
        self.instructions_seen
    }

    /// System calls in the counted window.
    pub fn system_calls(&self) -> Option<u64> {
        self.system_calls_seen
    }
}

impl load::Observer for Meter {
    fn measured_begins(&mut self) {
        self.start();
    }

    fn measured_ended(&mut self) {
        self.stop();
    }

    fn counted_begins(&mut self) {
        self.start_system_calls();
    }

    fn counted_ended(&mut self) {
        self.stop_system_calls();
    }
}

fn enable(counter: Option<&mut Counter>) {
    // A counter that does not start stays at zero and is reported as unknown.
    if let Some(counter) = counter {
        let _ = counter.reset().and_then(|()| counter.enable());
    }
}

fn disable(counter: Option<&mut Counter>) -> Option<u64> {
    let counter = counter?;
    counter.disable().ok()?;
    counter.read().ok().filter(|count| *count > 0)
}

/// The number of the tracepoint that every system call passes.
fn sys_enter() -> Option<u64> {
    let roots = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let id = roots.iter().find_map(|root| {
        fs::read_to_string(Path::new(root).join("events/raw_syscalls/sys_enter/id")).ok()
    })?;
    id.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_gives_the_time_on_a_cpu() {
        let text = "123456789 987 42\n";
        assert_eq!(parse_schedstat(text), Some(Duration::from_nanos(123_456_789)));
        assert_eq!(parse_schedstat(""), None);
        assert_eq!(parse_schedstat("x y z"), None);
    }

    #[test]
    fn unknown_thread_costs_nothing_known() {
        let mut meter = Meter::new(None);
        meter.start();
        meter.stop();
        meter.start_system_calls();
        meter.stop_system_calls();
        assert_eq!((meter.cpu(), meter.instructions(), meter.system_calls()), (None, None, None));
    }
}
