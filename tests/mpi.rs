//! One training on several processes that MPI starts: the same bytes as in one process.
#![cfg(all(unix, feature = "flex", feature = "mpi"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use common::run::{Ended, checkpoints};
use common::{DATA, MODEL, mtlora, small_data};

const GPT2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-gpt2");
const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/facts");

/// `mpirun`, which starts more processes than there are cores, also as root.
fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    command
        .args([
            "--oversubscribe",
            "--allow-run-as-root",
            "--bind-to",
            "none",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn on_ranks(size: usize, arguments: &[&str]) -> Child {
    mpirun()
        .args(["-np", &size.to_string()])
        .arg(env!("CARGO_BIN_EXE_mtlora"))
        .args(arguments)
        .spawn()
        .unwrap()
}

/// Standard output and standard error. The command must succeed.
fn done(child: Child) -> [String; 2] {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let [out, errors] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(status.success(), "{errors}");
    [out, errors]
}

/// Standard error. The command must fail.
fn failed(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// The flags of a short training, and a folder for its data and its runs.
struct Setup {
    folder: tempfile::TempDir,
    flags: Vec<String>,
}

impl Setup {
    /// With dropout, clipped gradients, evaluations within epochs, and a last step of three micro-batches instead of four.
    fn classification() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = small_data(folder.path(), 90, 32);
        let flags = [
            "--model",
            MODEL,
            "--task",
            "acceptability",
            "--data",
            data.to_str().unwrap(),
            "--epochs",
            "3",
            "--batch",
            "4",
            "--gradient-accumulation",
            "4",
            "--max-grad-norm",
            "1",
            "--lr",
            "1e-2",
            "--adapter-dropout",
            "0.1",
            "--structure",
            "ctcm",
            "--eval-steps",
            "4",
            "--save-steps",
            "1",
        ];
        Self {
            flags: flags.map(String::from).to_vec(),
            folder,
        }
    }

    /// The same with more epochs, so that the training is still running when a signal arrives.
    fn with_epochs(mut self, epochs: &str) -> Self {
        let at = self.flags.iter().position(|flag| flag == "--epochs");
        self.flags[at.unwrap() + 1] = epochs.to_string();
        self
    }

    fn generation() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("facts");
        fs::create_dir(&data).unwrap();
        for (name, lines) in [("train.jsonl", 24), ("dev.jsonl", 4)] {
            let text = fs::read_to_string(Path::new(FACTS).join(name)).unwrap();
            let kept: Vec<&str> = text.lines().take(lines).collect();
            fs::write(data.join(name), kept.join("\n")).unwrap();
        }
        let flags = [
            "--model",
            GPT2,
            "--task",
            "facts",
            "--data",
            data.to_str().unwrap(),
            "--epochs",
            "2",
            "--batch",
            "2",
            "--gradient-accumulation",
            "4",
            "--gradient-checkpointing",
            "--lr",
            "1e-2",
            "--num-beams",
            "1",
            "--max-new-tokens",
            "4",
        ];
        Self {
            flags: flags.map(String::from).to_vec(),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn train(&self, out: &Path) -> Vec<String> {
        let mut all = vec!["train".to_string()];
        all.extend(self.flags.iter().cloned());
        let end = [
            "--device",
            "flex",
            "--threads",
            "1",
            "--plain",
            "--out",
            out.to_str().unwrap(),
        ];
        all.extend(end.map(String::from));
        all
    }

    /// What one process ends with.
    fn alone(&self) -> Ended {
        let out = self.path("alone");
        let arguments = self.train(&out);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = mtlora(&arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        Ended::of(&out)
    }

    fn start(&self, size: usize, out: &Path) -> Child {
        self.start_with(mpirun(), size, out)
    }

    fn start_with(&self, mut mpirun: Command, size: usize, out: &Path) -> Child {
        mpirun
            .args(["-np", &size.to_string()])
            .arg(env!("CARGO_BIN_EXE_mtlora"))
            .args(self.train(out))
            .spawn()
            .unwrap()
    }

    fn is_the_same(&self, sizes: &[usize]) {
        let expected = self.alone();
        for size in sizes {
            let out = self.path(&format!("on-{size}"));
            let [lines, errors] = done(self.start(*size, &out));
            let begun = format!("{size} ranks train together, each with 1 threads");
            assert_eq!(errors.matches(&begun).count(), 1, "{errors}");
            assert_eq!(errors.matches("dev after step 0").count(), 1, "{errors}");
            assert_eq!(lines.matches("the run is in").count(), 1, "{lines}");
            Ended::of(&out).assert_same(&expected, &format!("{size} ranks"));
        }
    }
}

fn resume(size: usize, run: &Path) -> Child {
    let run = run.to_str().unwrap();
    on_ranks(
        size,
        &["train", "--resume", run, "--plain", "--threads", "1"],
    )
}

#[test]
fn a_classifier_is_the_same_on_two_and_four_ranks() {
    Setup::classification().is_the_same(&[2, 4]);
}

#[test]
fn a_generator_with_gradient_checkpointing_is_the_same_on_two_ranks() {
    Setup::generation().is_the_same(&[2]);
}

/// The processes of one launcher, by their ranks.
fn processes(launcher: &Child) -> Vec<(usize, u32)> {
    let parent = format!("PPid:\t{}", launcher.id());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let Some(process) = entry.file_name().to_str().and_then(|one| one.parse().ok()) else {
            continue;
        };
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        let rank = variables.find_map(|one| one.strip_prefix("OMPI_COMM_WORLD_RANK="));
        if let Some(rank) = rank
            && status.lines().any(|line| line == parent)
        {
            found.push((rank.parse().unwrap(), process));
        }
    }
    found.sort_unstable();
    found
}

fn is_running(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| !state.trim().starts_with(['Z', 'X']))
}

fn send(signal: &str, process: u32) {
    let sent = Command::new("kill")
        .args([signal, &process.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

fn copy_run(from: &Path, to: &Path) {
    common::copy_folder(from, to);
    for checkpoint in checkpoints(from) {
        let name = checkpoint.strip_prefix(from).unwrap();
        common::copy_folder(&checkpoint, &to.join(name));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_rank_ends_all_and_any_number_of_ranks_resumes_to_the_same_bytes() {
    let setup = Setup::classification().with_epochs("30");
    let expected = setup.alone();
    let killed = setup.path("killed");
    for victim in [3, 0] {
        let mut launcher = if victim == 3 {
            setup.start(4, &killed)
        } else {
            resume(4, &killed)
        };
        let had = checkpoints(&killed).len();
        // The checkpoints before the newest three are removed, so their number is at most three.
        let newest = checkpoints(&killed).pop();
        while checkpoints(&killed).len() <= had.min(2) || checkpoints(&killed).pop() == newest {
            assert_eq!(launcher.try_wait().unwrap(), None);
            sleep(Duration::from_millis(2));
        }
        let ranks = processes(&launcher);
        assert_eq!(ranks.len(), 4, "{ranks:?}");
        send("-KILL", ranks[victim].1);
        let text = failed(launcher);
        let said = format!(
            "mtlora: rank {victim} has died, which ends all others; resume with: mtlora train --resume {}",
            killed.display()
        );
        assert!(text.contains(&said), "{text}");
        let ended = Instant::now();
        while ranks.iter().any(|(_, process)| is_running(*process)) {
            assert!(ended.elapsed() < Duration::from_secs(60), "{text}");
            sleep(Duration::from_millis(20));
        }
        assert!(!killed.join("results.json").exists());
    }
    for size in [1, 2, 4] {
        let out = setup.path(&format!("resumed-{size}"));
        copy_run(&killed, &out);
        let [_, errors] = done(resume(size, &out));
        assert!(errors.contains("resuming after step"), "{errors}");
        Ended::of(&out).assert_same(&expected, &format!("resumed on {size}"));
    }
}

#[test]
fn a_signal_stops_all_ranks_after_a_step_with_a_checkpoint() {
    let setup = Setup::classification().with_epochs("100000");
    let out = setup.path("stopped");
    // Open MPI passes the signal on after as many seconds, and kills the ranks after as many again.
    let mut mpirun = mpirun();
    mpirun.args(["--mca", "odls_base_sigkill_timeout", "5"]);
    let launcher = setup.start_with(mpirun, 2, &out);
    while checkpoints(&out).is_empty() {
        sleep(Duration::from_millis(2));
    }
    send("-TERM", launcher.id());
    let text = failed(launcher);
    let (_, rest) = text
        .split_once("mtlora: stopped by SIGTERM after step ")
        .unwrap();
    let (step, rest) = rest.split_once(", with a checkpoint; ").unwrap();
    let end = format!("resume with: mtlora train --resume {}", out.display());
    assert!(rest.starts_with(&end), "{text}");
    let newest = checkpoints(&out).pop().unwrap();
    let newest = newest.file_name().unwrap().to_str().unwrap();
    assert!(newest.ends_with(step), "{newest} {step}");
}

#[test]
fn what_cannot_be_shared_is_refused_once() {
    let setup = Setup::classification();
    let out = setup.path("run");
    let count = |text: &str, part: &str| assert_eq!(text.matches(part).count(), 1, "{text}");
    let text = failed(setup.start(3, &out));
    count(
        &text,
        "mtlora: a step has 4 micro-batches (--gradient-accumulation), which 3 ranks cannot share evenly: use a multiple of 3",
    );
    let text = failed(on_ranks(2, &["train", "--no-such-flag"]));
    count(&text, "unexpected argument '--no-such-flag'");
    let text = failed(on_ranks(2, &["train", "--resume", out.to_str().unwrap()]));
    count(&text, "mtlora: ");
    assert!(!out.exists());
}

/// Rank 1 is started with other data, and with data that is not there.
#[test]
fn ranks_with_other_data_are_refused_by_name() {
    let setup = Setup::classification();
    let started_with = |data: &str| {
        let out = setup.path("run");
        let own = setup.train(&out);
        let mut other = own.clone();
        let at = other.iter().position(|flag| flag == "--data").unwrap();
        other[at + 1] = data.to_string();
        let program = env!("CARGO_BIN_EXE_mtlora");
        let mut command = mpirun();
        command.args(["-np", "1", program]).args(&own);
        command.args([":", "-np", "1", program]).args(&other);
        failed(command.spawn().unwrap())
    };
    let text = started_with(DATA);
    assert!(
        text.contains("mtlora: rank 1 has other examples than rank 0"),
        "{text}"
    );
    fs::remove_dir_all(setup.path("run")).unwrap();
    let text = started_with("no-such-folder");
    assert!(text.contains("mtlora: rank 1: no-such-folder"), "{text}");
}

#[test]
fn a_dry_run_measures_steps_of_all_ranks() {
    let setup = Setup::classification();
    let mut arguments = setup.train(&setup.path("none"));
    arguments.extend(["--dry-run", "--json"].map(String::from));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [lines, _] = done(on_ranks(2, &arguments));
    assert!(lines.contains("one on each of 2 ranks"), "{lines}");
    let json: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(json["ranks"], 2);
    assert!(!setup.path("none").exists());
}
