//! `holdfast bench`.

mod report;

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::{ApiError, ByteLen};
use load::{
    Clock, ConnectError, Destination, Digests, Found, Host, Observer, Outcome, Plan, RunError,
    Session, SessionError,
};
use signal_hook::consts::SIGINT;

use crate::args::{BenchArgs, Output};
use crate::confirm::confirm;
use crate::run::{Failure, Terminal};
use report::Bench;

/// Ports where services are when nobody says otherwise.
const PORT_IO: u16 = 4420;
const PORT_DISCOVERY: u16 = 8009;

/// How long is measured when nobody says otherwise.
const TIME_DEFAULT: Duration = Duration::from_secs(10);

/// Plain lines of progress are this far apart.
const LINES_EACH: Duration = Duration::from_secs(10);

/// A line that is drawn again and again changes this often.
const REDRAWN_EACH: Duration = Duration::from_secs(1);

pub(super) fn execute(
    args: &BenchArgs,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let destination = destination(args)?;
    let plan = plan(args);
    let session =
        Session::connect(&destination, plan).map_err(|error| explain(&error, &destination))?;
    if plan.rw.writes() {
        confirm(&question(&session, &destination), args.yes, terminal)?;
    }
    let interrupted = interrupts()?;
    let mut bench = Bench { destination, plan, region: session.region_bytes(), interrupted: false };
    let mut watch = Watch::new(&bench, terminal, Arc::clone(&interrupted));
    let measured = session.run(&mut watch);
    watch.clear();
    bench.interrupted = interrupted.load(Ordering::Relaxed);
    match measured {
        Ok(summary) => bench.print(&summary, output, terminal.out),
        Err(SessionError::Run(RunError::Verify(mismatch))) => {
            bench.print_mismatch(mismatch, output, terminal.out)?;
            Err(Failure::Found)
        }
        Err(error) => Err(explain(&error, &bench.destination).into()),
    }
}

fn plan(args: &BenchArgs) -> Plan {
    let time = match (args.time, args.size) {
        (None, None) => Some(TIME_DEFAULT),
        (time, _) => time,
    };
    Plan {
        rw: args.rw,
        bytes: args.bs,
        depth: args.iodepth,
        jobs: args.numjobs,
        read_percent: args.rwmixread,
        region: args.size,
        time,
        ramp: args.ramp_time,
        rate: args.rate,
        seed: args.seed,
        verify: args.verify,
    }
}

/// What would be lost, as a question.
fn question(session: &Session, destination: &Destination) -> String {
    let namespace = session.namespace();
    let all = namespace.blocks.saturating_mul(u64::from(namespace.block_size));
    let part = match ByteLen::from_bytes(session.region_bytes()) {
        region if region.bytes() == all => format!("all {region}"),
        region => format!("the first {region} of {}", ByteLen::from_bytes(all)),
    };
    let Destination { subsystem, address, .. } = destination;
    format!("overwrite {part} of {} at {address}?", subsystem.as_str())
}

fn destination(args: &BenchArgs) -> Result<Destination, Failure> {
    let host = match &args.hostnqn {
        None => Host::bench(),
        Some(nqn) => Host::named(load::Nqn::new(nqn.as_str()).expect("the stricter rule holds")),
    };
    let named = args.target.as_ref();
    let address = named.and_then(|target| target.address.as_deref());
    let (address, subsystem) = match (address, &args.discover, named) {
        (Some(_), Some(_), _) => {
            let hint = "name the subsystem alone, or leave --discover out";
            return Err(ApiError::invalid("discover", "the address is known", hint).into());
        }
        (Some(address), None, Some(target)) => (resolve(address, PORT_IO)?, target.subsystem),
        (_, Some(service), named) => {
            let found = ask(resolve(service, PORT_DISCOVERY)?, host)?;
            let found = choose(&found, named.map(|target| target.subsystem), service)?;
            (found.address, found.subsystem)
        }
        _ => {
            let hint = "write tcp://ADDRESS/NQN, or add --discover ADDRESS";
            return Err(ApiError::invalid("target", "nobody says where it is", hint).into());
        }
    };
    let digests = Digests { header: args.hdgst, data: args.ddgst };
    let nsid = args.nsid;
    Ok(Destination { host, digests, nsid, ..Destination::new(address, subsystem) })
}

/// ADDRESS[:PORT], where the address is a number or a name.
fn resolve(text: &str, port: u16) -> Result<SocketAddr, ApiError> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let found = match bare.parse() {
        Ok(ip) => Ok(Some(SocketAddr::new(ip, port))),
        Err(_) if text.contains(':') => text.to_socket_addrs().map(|mut all| all.next()),
        Err(_) => (text, port).to_socket_addrs().map(|mut all| all.next()),
    };
    let hint = "use ADDRESS or ADDRESS:PORT, and [ADDRESS]:PORT for IPv6";
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(ApiError::invalid("address", format!("{text:?} has no address"), hint)),
        Err(error) => Err(ApiError::invalid("address", format!("{text:?}: {error}"), hint)),
    }
}

/// Asks a discovery service.
fn ask(service: SocketAddr, host: Host) -> Result<Vec<Found>, ApiError> {
    let failed = |error: ConnectError| {
        ApiError::unavailable(format!("the discovery service at {service}: {error}"))
    };
    let pool = load::pool(1, 1, 4096).map_err(ApiError::internal)?;
    let net = load::sockets(1).map_err(|error| failed(error.into()))?;
    let clock = Clock::start();
    load::discover(Box::new(net), &Rc::new(pool), service, host, &mut || clock.now())
        .map_err(failed)
}

/// The subsystem that is meant.
fn choose(found: &[Found], subsystem: Option<load::Nqn>, service: &str) -> Result<Found, ApiError> {
    let mut names: Vec<&str> = found.iter().map(|found| found.subsystem.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let shown = match names.as_slice() {
        [] => "it shows none to this host: admit it with holdfast export hosts add".to_owned(),
        names => format!("it shows {}", names.join(", ")),
    };
    let meant = found.iter().find(|found| subsystem.is_none_or(|nqn| nqn == found.subsystem));
    match meant {
        Some(_) if subsystem.is_none() && names.len() > 1 => {
            let reason = format!("{service} shows several subsystems: {}", names.join(", "));
            Err(ApiError::invalid("target", reason, "name one of them"))
        }
        Some(found) => Ok(*found),
        None => {
            let name = subsystem.map_or("any".to_owned(), |nqn| nqn.as_str().to_owned());
            Err(ApiError::NotFound { what: "subsystem".to_owned(), name, hint: shown })
        }
    }
}

/// Why it did not work, in the terms of the command line.
fn explain(error: &SessionError, destination: &Destination) -> ApiError {
    let Destination { address, host, .. } = destination;
    match error {
        SessionError::Unfit { field, reason } => ApiError::invalid(*field, reason, ""),
        SessionError::Pool(error) => {
            ApiError::exhausted(error.to_string(), "use a smaller --iodepth, --numjobs or --bs")
        }
        SessionError::Connect(error) if error.refuses_host() => {
            let host = host.nqn.as_str();
            let reason = format!("{address} does not admit the host {host}");
            let hint =
                format!("admit it with holdfast export hosts add VOLUME {host}, or --hostnqn");
            ApiError::precondition(reason, hint)
        }
        SessionError::Connect(error) => ApiError::unavailable(format!("{address}: {error}")),
        SessionError::Run(error) if error.is_of_path() => {
            ApiError::unavailable(format!("{address} was lost: {error}"))
        }
        other => ApiError::internal(other),
    }
}

/// Set when somebody interrupts the program. The second time ends it at once.
fn interrupts() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&flag))?;
    signal_hook::flag::register(SIGINT, Arc::clone(&flag))?;
    Ok(flag)
}

/// Shows how it goes on standard error.
struct Watch<'a, 'b> {
    terminal: &'a mut Terminal<'b>,
    interrupted: Arc<AtomicBool>,
    name: String,
    bytes: u64,
    time: Option<Duration>,
    shown_at: Duration,
    shown_ios: u64,
    /// Characters on the line that is drawn now.
    drawn: usize,
}

impl<'a, 'b> Watch<'a, 'b> {
    fn new(
        bench: &Bench,
        terminal: &'a mut Terminal<'b>,
        interrupted: Arc<AtomicBool>,
    ) -> Watch<'a, 'b> {
        Watch {
            terminal,
            interrupted,
            name: bench.name(),
            bytes: u64::from(bench.plan.bytes),
            time: bench.plan.time,
            shown_at: Duration::ZERO,
            shown_ios: 0,
            drawn: 0,
        }
    }

    /// Removes the line, so that something else can be printed.
    fn clear(&mut self) {
        if self.drawn > 0 {
            let _ = write!(self.terminal.err, "\r{}\r", " ".repeat(self.drawn));
            self.drawn = 0;
        }
    }

    fn line(&self, outcome: &Outcome, elapsed: Duration) -> String {
        let ios = outcome.ios - self.shown_ios;
        let iops = load::per_second(ios, elapsed.saturating_sub(self.shown_at));
        let mib = iops.saturating_mul(self.bytes) >> 20;
        let latency = outcome.latency();
        let [p50, p99] = [5000, 9900].map(|share| report::micros(latency.percentile(share)));
        let of = self.time.map_or(String::new(), |time| format!(" of {}", time.as_secs()));
        let (name, seconds) = (&self.name, elapsed.as_secs());
        format!("{name}: {seconds}{of} s, {iops} IOPS, {mib} MiB/s, p50 {p50} us, p99 {p99} us")
    }
}

impl Observer for Watch<'_, '_> {
    fn ticked(&mut self, outcome: &Outcome, elapsed: Duration) -> bool {
        let each = if self.terminal.interactive { REDRAWN_EACH } else { LINES_EACH };
        if elapsed.saturating_sub(self.shown_at) >= each {
            let line = self.line(outcome, elapsed);
            // Progress that cannot be shown is no reason to stop.
            if self.terminal.interactive {
                self.clear();
                self.drawn = line.len();
                let _ = write!(self.terminal.err, "{line}");
            } else {
                let _ = writeln!(self.terminal.err, "{line}");
            }
            let _ = self.terminal.err.flush();
            (self.shown_at, self.shown_ios) = (elapsed, outcome.ios);
        }
        !self.interrupted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_port_of_their_service_when_none_is_said() {
        for (text, port, address) in [
            ("192.0.2.1", 4420, "192.0.2.1:4420"),
            ("192.0.2.1:5000", 4420, "192.0.2.1:5000"),
            ("fd00::1", 8009, "[fd00::1]:8009"),
            ("[fd00::1]", 8009, "[fd00::1]:8009"),
            ("[fd00::1]:5000", 8009, "[fd00::1]:5000"),
        ] {
            assert_eq!(resolve(text, port).unwrap().to_string(), address, "{text}");
        }
        for nonsense in ["", "192.0.2.1:x", "192.0.2.1:70000"] {
            assert!(resolve(nonsense, 4420).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn one_subsystem_needs_no_name_and_several_do() {
        let nqn = |name: &str| load::Nqn::new(name).unwrap();
        let found = |name, port| Found {
            subsystem: nqn(name),
            address: SocketAddr::from(([192, 0, 2, 1], port)),
        };
        let [a, b] = ["nqn.2026-11.io.example:a", "nqn.2026-11.io.example:b"];
        let all = [found(a, 1), found(a, 2), found(b, 1)];
        assert_eq!(choose(&all[..2], None, "x"), Ok(all[0]));
        assert_eq!(choose(&all, Some(nqn(b)), "x"), Ok(all[2]));
        let several = choose(&all, None, "x").unwrap_err();
        assert!(several.to_string().contains(&format!("{a}, {b}")), "{several}");
        let missing = choose(&all[..1], Some(nqn(b)), "x").unwrap_err();
        assert!(missing.hint().contains(a), "{}", missing.hint());
        assert!(choose(&[], None, "x").unwrap_err().hint().contains("hosts add"));
    }
}
