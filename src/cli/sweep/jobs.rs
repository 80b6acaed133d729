//! Shares a sweep among processes on this machine.

use std::error::Error;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::thread;

use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;

/// The exit code of a process that failed for a reason that it has printed.
const FAILED: i32 = 2;

/// Starts `jobs` processes of this program, and waits for all of them. `arguments` returns the arguments of one, by its
/// number from 0. Each of them stops when this process is gone.
///
/// # Errors
/// If one cannot be started, or does not end well.
pub(super) fn run(
    jobs: usize,
    arguments: impl Fn(usize) -> Vec<String>,
) -> Result<(), Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let mut children = Vec::new();
    for job in 0..jobs {
        let mut command = Command::new(&program);
        command.args(arguments(job));
        // The pipe is never written to. It ends with this process.
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        children.push(command.spawn()?);
    }
    let mut failed = Vec::new();
    for (job, mut child) in children.into_iter().enumerate() {
        // Waiting for a child closes its pipe, so the pipe is kept until the child has ended.
        let pipe = child.stdin.take();
        let status = child.wait()?;
        drop(pipe);
        match status.code() {
            Some(0) => {}
            Some(FAILED) => failed.push(format!("process {job} failed")),
            _ => failed.push(format!("process {job} ended with {status}")),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{}; start the sweep again to make the runs that are missing",
            failed.join(", ")
        )
        .into()),
    }
}

/// Stops this process, as SIGTERM does, when the process that started it by [`run`] is gone.
pub(super) fn stop_with_parent() {
    thread::spawn(|| {
        let mut input = io::stdin().lock();
        let mut buffer = [0; 64];
        while matches!(input.read(&mut buffer), Ok(count) if count > 0) {}
        // If the signal cannot be raised, the process goes on with its work, which does no harm.
        let _ = raise(SIGTERM);
    });
}
