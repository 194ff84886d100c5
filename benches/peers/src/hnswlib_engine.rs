//! hnswlib (C++), through its Python package: `hnswlib_peer.py` reads the same files, asks the
//! same questions, and reports in lines of JSON.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::measure::{IN_FLIGHT, Measured};
use crate::set::Set;
use crate::{Options, Outcome};

pub(crate) fn run(
    set: &Set,
    options: &Options,
    report: &mut dyn FnMut(Measured) -> Outcome<()>,
) -> Outcome<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hnswlib_peer.py");
    let breadths = options.breadths(set.gallery.len());
    let breadths: Vec<_> = breadths.iter().map(ToString::to_string).collect();
    let mut python = Command::new(&options.python)
        .arg(script)
        .args([&set.files.gallery, &set.files.probes])
        .arg(format!("--width={}", set.settings.width))
        .arg(format!("--mates={}", set.settings.mates))
        .arg(format!("--m={}", options.m))
        .arg(format!("--ef-construction={}", options.ef_construction))
        .arg(format!("--threads={}", options.threads))
        .arg(format!("--seconds={}", IN_FLIGHT.as_secs()))
        .arg("--ef")
        .args(breadths)
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = python.stdout.take().ok_or("the script has no output")?;
    for line in BufReader::new(lines).lines() {
        report(serde_json::from_str(&line?)?)?;
    }
    if python.wait()?.success() { Ok(()) } else { Err("hnswlib_peer.py failed".into()) }
}
