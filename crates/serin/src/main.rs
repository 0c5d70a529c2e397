//! The `serin` binary: the command line, and the entry points of Serin's processes. It holds no logic of its own.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod apply;
mod cli;
mod columns;
mod console;
mod delete;
mod demo;
mod describe;
mod discovery;
mod error;
mod explain;
mod follow;
mod gateway;
mod get;
mod manifest;
mod merge;
mod output;
mod processes;
mod refusal;
mod rollout;
mod rows;
mod simulate;
mod target;
mod time;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::error::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::from(error::code::OK),
        // `serin get ... | head` ends quietly.
        Err(error) if error.is_broken_pipe() => ExitCode::from(error::code::OK),
        Err(error) => {
            if !matches!(error, Error::Exit(_)) {
                console::error(&error.chain(), error.hint().as_deref());
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: &cli::Cli) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let ended = cli::run(cli, &mut out);
    // What was printed before an error is data too.
    let flushed = out.flush();
    ended?;
    Ok(flushed?)
}
