//! `holdfast-bench`: see the documentation of the `bench` crate.

#![forbid(unsafe_code)]

use std::fs;
use std::process::ExitCode;

use bench::network::{self, Site};
use bench::report::{Report, Row};
use bench::{BenchError, Device, Options, Shape, callgrind, direct, machine, suite, table};
use clap::Parser;

fn main() -> ExitCode {
    let options = Options::parse();
    match bench(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<(), BenchError> {
    if let Some((ios, rw)) = options.pipe_ios.zip(options.rw) {
        println!("{}", callgrind::child(options, Shape::of(options, rw), ios)?);
        return Ok(());
    }
    let mut report = Report { context: machine::context(), ..Report::default() };
    network::pin_initiator(options);
    match options.rw {
        Some(rw) => report.rows.push(single(options, Shape::of(options, rw))?),
        None => suite::measure(options, &mut report)?,
    }
    print(options, &report)
}

/// The one row that the command line asks for.
fn single(options: &Options, shape: Shape) -> Result<Row, BenchError> {
    if options.direct {
        return direct::row(options, shape);
    }
    if let Device::Remote { .. } = options.device {
        return network::row(options, &Site::remote(&options.device)?, shape);
    }
    suite::single(options, shape)
}

fn print(options: &Options, report: &Report) -> Result<(), BenchError> {
    if options.json {
        let json = serde_json::to_string_pretty(report).expect("plain values");
        println!("{json}");
    } else {
        println!("{}", table::render(report));
    }
    let path = &options.document;
    let system = |what: &str| {
        let what = format!("{what} {}", path.display());
        move |source| BenchError::System { what, source }
    };
    if options.record {
        let document = fs::read_to_string(path).map_err(system("reading"))?;
        let document = table::record(&document, report)?;
        return fs::write(path, document).map_err(system("writing"));
    }
    // Without a recorded table there is nothing to compare with, and that is no failure.
    if let (false, Ok(document)) = (options.json, fs::read_to_string(path)) {
        let ratios = table::compare(report, &table::parse(&document));
        if !ratios.is_empty() {
            println!("Compared with {} (new / recorded):\n{ratios}", path.display());
        }
    }
    Ok(())
}
