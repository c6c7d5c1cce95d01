//! One of the hot paths, again and again, for a program that counts instructions.
//!
//! `counts NAME TIMES` prepares the workload, runs it once, and then TIMES times more: the difference
//! between two numbers of times is what it costs. Without a name it prints the names, a line each, and
//! `counts --machine` what the machine offers that code chooses by.
#![allow(clippy::print_stdout, reason = "a terminal program says what there is")]

mod capture;
mod disk;
mod log;
mod signature;
mod streams;

use std::error::Error;

type Outcome<T> = Result<T, Box<dyn Error>>;
/// Runs a workload once.
type Work = Box<dyn FnMut() -> Outcome<()>>;
/// Prepares a workload.
type Prepare = fn() -> Outcome<Work>;

/// Every workload: its name, and what prepares it.
const WORKLOADS: [(&str, Prepare); 10] = [
    ("put-records-500x100b", || streams::puts(100)),
    ("put-records-500x1kib", || streams::puts(1_024)),
    ("get-records-json", streams::gets_json),
    ("get-records-cbor", streams::gets_cbor),
    ("subscription", streams::subscriptions),
    ("signature-1kib", || signature::verifies(1 << 10)),
    ("signature-512kib", || signature::verifies(512 << 10)),
    ("log-append", log::appends),
    ("log-recovery", log::recoveries),
    ("capture-rows", capture::rows),
];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => WORKLOADS.iter().for_each(|(name, _)| println!("{name}")),
        ["--machine"] => println!("{}", machine()),
        [name, times] => {
            let found = WORKLOADS.iter().find(|workload| workload.0 == name);
            let (_, prepare) = found.ok_or_else(|| format!("no workload {name}"))?;
            let mut work = prepare()?;
            for _ in 0..=times.parse::<u32>()? {
                work()?;
            }
        }
        _ => return Err("counts [NAME TIMES]".into()),
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn machine() -> String {
    let avx2 = if std::is_x86_feature_detected!("avx2") { "-avx2" } else { "" };
    let sha = if std::is_x86_feature_detected!("sha") { "-sha" } else { "" };
    format!("x86_64{avx2}{sha}")
}

#[cfg(not(target_arch = "x86_64"))]
fn machine() -> String {
    std::env::consts::ARCH.to_owned()
}
