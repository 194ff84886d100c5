//! Every engine at every size, each in a process of its own, as Markdown.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use crate::engine::EngineName;
use crate::score::Row;
use crate::{Options, Outcome, child, machine, prepare};

pub(crate) fn print(
    sizes: &[usize],
    engines: &[EngineName],
    json: Option<&Path>,
    options: &Options,
) -> Outcome<()> {
    let open = |path| File::options().create(true).append(true).open(path);
    let mut json = json.map(open).transpose()?;
    println!("{}", machine::description());
    for &size in sizes {
        prepare(size, options)?;
        let mut heading = true;
        for &engine in engines {
            eprintln!("{} of {size}", engine.as_str());
            let rows = run(engine, size, options, json.as_mut())?;
            if let Some(row) = rows.first().filter(|_| heading) {
                head(row, options);
                heading = false;
            }
            rows.iter().for_each(line);
        }
    }
    Ok(())
}

/// Runs one engine in a child. Lines of JSON are kept as they come.
fn run(
    engine: EngineName,
    size: usize,
    options: &Options,
    mut json: Option<&mut File>,
) -> Outcome<Vec<Row>> {
    let mut child = child("run", size, options)?
        .arg(format!("--engine={}", engine.as_str()))
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the engine's process has no output")?;
    let mut rows = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(json) = &mut json {
            writeln!(json, "{line}")?;
        }
        rows.push(serde_json::from_str(&line)?);
    }
    if !child.wait()?.success() {
        return Err(format!("{} failed at {size}", engine.as_str()).into());
    }
    Ok(rows)
}

fn head(row: &Row, options: &Options) {
    let Row { templates, width, templates_per_person, noise_scale, .. } = row;
    println!(
        "\n{templates} templates of {width} dimensions, {templates_per_person} a person, noise \
         {noise_scale}; of {} mated probes exact search finds {} first, {} of them at cosine \
         {:.3} or more. M = {}, ef_construction = {}.\n",
        options.mates,
        row.mates_first,
        row.mates_above,
        row.threshold,
        options.m,
        options.ef_construction
    );
    println!(
        "| engine | ef | recall above threshold | recall, all mates | per second, one core \
         | p50 ms | p99 ms | per second in flight (callers) | build s | bytes a record |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
}

fn line(row: &Row) {
    println!(
        "| {} {} | {} | {:.4} | {:.4} | {:.0} | {:.3} | {:.3} | {:.0} ({}) | {:.1} | {:.0} |",
        row.engine.as_str(),
        row.version,
        row.ef.map_or_else(|| "-".into(), |ef| ef.to_string()),
        row.recall_above,
        row.recall_all,
        row.per_second_one_core,
        row.p50_ms,
        row.p99_ms,
        row.per_second_in_flight,
        row.callers,
        row.build_s,
        row.bytes_per_record,
    );
}
