//! The machine, and this process on it. Linux only.

use std::fs;
use std::thread;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Outcome;

/// What decides how fast an index is.
const FLAGS: [&str; 9] = [
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_vpopcntdq",
    "avx512_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
];

/// Processor, cores, its useful flags, the memory, and how busy it all is, in a line.
pub(crate) fn description() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "unknown processor".into());
    let has = field("flags").or_else(|| field("Features")).unwrap_or_default();
    let flags = FLAGS.into_iter().filter(|flag| has.split(' ').any(|has| has == *flag));
    let flags = flags.collect::<Vec<_>>().join(" ");
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let gib = status_kb("/proc/meminfo", &["MemTotal:"]) / (1024 * 1024);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    format!("{model}, {cores} cores ({flags}), {gib} GiB, load {load} at the start")
}

/// The version of a crate that was built in.
pub(crate) fn locked_version(name: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let after =
        lock.split_once(&format!("name = \"{name}\"\nversion = \"")).map(|(_, after)| after);
    after.and_then(|after| after.split('"').next()).unwrap_or("?")
}

/// Bytes of memory that this process has made its own; pages of mapped files do not count.
pub(crate) fn resident_bytes() -> u64 {
    1024 * status_kb("/proc/self/status", &["RssAnon:", "RssShmem:"])
}

fn status_kb(path: &str, names: &[&str]) -> u64 {
    let status = fs::read_to_string(path).unwrap_or_default();
    let wanted = |line: &&str| names.iter().any(|name| line.starts_with(name));
    let kb = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    status.lines().filter(wanted).filter_map(kb).sum()
}

/// Runs `work` with every thread of this process on one core: what it takes is then one core's
/// time, however many threads an engine keeps.
pub(crate) fn on_one_core<T>(work: impl FnOnce() -> T) -> Outcome<T> {
    let all = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| all.is_set(*cpu)).ok_or("no processor")?;
    let mut one = CpuSet::new();
    one.set(last);
    confine(&one)?;
    let done = work();
    confine(&all)?;
    Ok(done)
}

fn confine(cpus: &CpuSet) -> Outcome<()> {
    for thread in fs::read_dir("/proc/self/task")? {
        let id = thread?.file_name().to_string_lossy().parse()?;
        match sched_setaffinity(Pid::from_raw(id), cpus) {
            // It has ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
