use std::error::Error;

use clap::Args as ClapArgs;
use mtlora::core::{
    BaseDtype, CpuChoice, CpuPath, NamedDevice, capabilities, device_description, kernel_cache,
    self_test,
};
use serde::Serialize;
use serde_json::json;

use crate::cli::console::output;
use crate::cli::model::device;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Compute a few small operations and their gradients on each device, and compare them with the right results. This
    /// compiles kernels, which can take a minute on a software driver.
    #[arg(long)]
    check: bool,
}

/// What is printed of a device.
#[derive(Serialize)]
struct Listed {
    name: String,
    /// What the hardware or driver calls itself.
    description: Option<String>,
    /// The precisions that it can keep frozen weights in.
    base_dtypes: Vec<BaseDtype>,
    /// Which of the processor's instructions its kernels use, if it is the processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu>,
    /// What it does wrongly, if it was checked: nothing where it computes as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
}

/// The path that the kernels for the CPU take.
#[derive(Serialize)]
struct Cpu {
    path: &'static str,
    /// Why this one, and which others there are.
    reason: String,
    /// What is printed of it, line by line.
    #[serde(skip)]
    lines: Vec<String>,
}

impl Cpu {
    fn of(choice: CpuChoice) -> Self {
        Self {
            path: choice.path.name(),
            reason: choice.reason(),
            lines: Self::lines(choice),
        }
    }

    fn lines(choice: CpuChoice) -> Vec<String> {
        let (path, variable) = (choice.path, CpuChoice::VARIABLE);
        let others: Vec<&str> = CpuPath::available()
            .filter(|other| *other != path)
            .map(CpuPath::name)
            .collect();
        if choice.is_requested {
            return vec![
                format!("kernels: {path}, which {variable} names"),
                format!("to let the program choose: unset {variable}"),
            ];
        }
        let mut lines = match others.is_empty() {
            true => vec![format!("kernels: {path}, which every processor can use")],
            false => vec![
                format!("kernels: {path}, the fastest that can be used here"),
                format!("to choose others: {variable}={}", others.join("|")),
            ],
        };
        lines.extend(CpuPath::unused());
        lines
    }
}

#[derive(Serialize)]
struct Check {
    passed: bool,
    error: Option<String>,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<(), Box<dyn Error>> {
    let mut listed = Vec::new();
    for (index, named) in device::all().into_iter().enumerate() {
        let one = look_at(named, args.check);
        for line in one.lines(index == 0) {
            say!("{line}")?;
        }
        listed.push(one);
    }
    let cache = kernel_cache();
    if let Some(cache) = &cache {
        say!("tuning results of GPUs are kept in {}", cache.display())?;
    }
    if json {
        output::json(&json!({ "devices": listed, "kernel_cache": cache }))?;
    }
    let wrong = listed
        .iter()
        .filter(|one| one.is_wrong())
        .map(|one| one.name.as_str());
    let wrong: Vec<&str> = wrong.collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("do not use: {}", wrong.join(", ")).into())
}

fn look_at(named: NamedDevice, check: bool) -> Listed {
    let NamedDevice { name, device } = named;
    let keeps = BaseDtype::ALL
        .into_iter()
        .filter(|dtype| dtype.check(&device).is_ok());
    let check = check.then(|| {
        let error = self_test(&device).err();
        Check {
            passed: error.is_none(),
            error: error.map(|error| error.to_string()),
        }
    });
    Listed {
        description: device_description(&device),
        base_dtypes: keeps.collect(),
        cpu: capabilities(&device).cpu.map(Cpu::of),
        check,
        name,
    }
}

impl Listed {
    fn is_wrong(&self) -> bool {
        self.check.as_ref().is_some_and(|check| !check.passed)
    }

    /// The name and what the device can do, a line for each.
    fn lines(&self, is_default: bool) -> Vec<String> {
        let mut name = self.name.clone();
        if let Some(description) = &self.description {
            name += &format!(", {description}");
        }
        if is_default {
            name += " (default)";
        }
        let dtypes: Vec<String> = self.base_dtypes.iter().map(BaseDtype::to_string).collect();
        let mut about = vec![format!("precisions: {}", dtypes.join(", "))];
        about.extend(self.cpu.iter().flat_map(|cpu| cpu.lines.clone()));
        about.extend(self.check.as_ref().map(|check| match &check.error {
            Some(error) => format!("does not compute as it should: {error}"),
            None => "computes as it should".to_string(),
        }));
        let about = about.into_iter().map(|line| format!("  {line}"));
        [name].into_iter().chain(about).collect()
    }
}
