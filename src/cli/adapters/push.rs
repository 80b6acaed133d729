use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use indicatif::DecimalBytes;
use mtlora::hub::{Hub, HubError, Progress, PushOptions, RepoId, RepoKind, Upload};
use mtlora::models::{GgufType, PeftAdapter, StoredDtype};
use mtlora::train::Run;
use serde_json::{Value, json};

use crate::cli::adapters::{card, export, merge};
use crate::cli::console::output;
use crate::cli::console::signals::{Signals, StoppedBy};
use crate::cli::hub::{self, Transfers};
use crate::cli::model::adapted::{self, Source};
use crate::cli::model::finished::CheckpointArgs;

/// The name of a model card in a repository.
const CARD: &str = "README.md";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run, or another folder with an adapter of MTLoRA.
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The repository on the Hub, as in org/name. It is created if it does not exist.
    #[arg(value_name = "ORG/NAME")]
    name: RepoId,
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// Create a private repository. One that exists must be private already.
    #[arg(long)]
    private: bool,
    /// Send the whole model, with the adapter merged into its weights.
    #[arg(long, conflicts_with_all = ["server", "fold"])]
    merged: bool,
    /// With --merged: the precision of the weights: f32, bf16, f16.
    #[arg(
        long,
        default_value_t,
        value_name = "PRECISION",
        requires = "merged",
        conflicts_with = "gguf"
    )]
    dtype: StoredDtype,
    /// With --merged: a GGUF file for llama.cpp and Ollama instead of a Hugging Face folder, with matrices in this type: F16,
    /// BF16, Q8_0, F32.
    #[arg(long, value_name = "TYPE", requires = "merged")]
    gguf: Option<GgufType>,
    #[command(flatten)]
    form: export::Form,
    /// The base model's name on the Hub, for the adapter's files and the model card [default: where the run's model came from].
    #[arg(long, value_name = "NAME")]
    base_model_name: Option<String>,
    /// The commit's message.
    #[arg(long, value_name = "TEXT", default_value = "Upload with mtlora")]
    message: String,
    /// Add a commit to a repository that has other files, or other contents of these.
    #[arg(long)]
    overwrite: bool,
    /// List the files and send nothing. No token is needed.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: Args, json: bool) -> Result<(), Box<dyn Error>> {
    if !args.name.name().contains('/') {
        return Err(format!(
            "{}: a repository to send files to is named with its owner, as ORG/NAME; ORG is your name on the Hub, or that of an \
             organization",
            args.name.name()
        )
        .into());
    }
    let hub = hub::open()?;
    if !args.dry_run {
        hub.check_push(&args.name)?;
    }
    args.checkpoint.check(&args.run)?;
    // The files below would be left behind if a signal ended the process at once.
    let signals = Signals::listen()?;
    let made = tempfile::Builder::new()
        .prefix("mtlora-push-")
        .tempdir()
        .map_err(|error| format!("a temporary folder (see TMPDIR): {error}"))?;
    if args.merged {
        merged(&args, made.path())?;
    } else {
        adapter(&args, made.path())?;
    }
    check_signal(&signals)?;
    if !made.path().join(CARD).exists() {
        note!("{}: the files have no model card", args.run.display());
    }
    let upload = Upload::of_folder(made.path())?;
    check_signal(&signals)?;
    list(&args.name, &hub, &upload)?;
    let files: Vec<Value> = upload
        .files()
        .iter()
        .map(|file| json!({ "name": file.name(), "bytes": file.size(), "sha256": file.sha256() }))
        .collect();
    if args.dry_run {
        if json {
            output::json(&json!({ "repository": args.name.name(), "files": files }))?;
        }
        note!("nothing was sent (--dry-run)");
        return Ok(());
    }
    let options = PushOptions {
        private: args.private,
        overwrite: args.overwrite,
        message: args.message,
    };
    let mut sending = Sending {
        transfers: Transfers::of_sending(),
        signals: &signals,
    };
    let pushed = match hub.push(&args.name, &upload, &options, &mut sending) {
        Err(HubError::Stopped) => {
            check_signal(&signals)?;
            return Err(HubError::Stopped.into());
        }
        result => result?,
    };
    match &pushed.commit {
        Some(_) if pushed.kept.is_empty() => say!("sent to {}", pushed.url)?,
        Some(_) => say!(
            "sent to {}, which had the contents of {} already",
            pushed.url,
            pushed.kept.join(", ")
        )?,
        None => say!("{} has all of it already", pushed.url)?,
    }
    if json {
        output::json(&json!({
            "repository": args.name.name(),
            "files": files,
            "url": pushed.url,
            "commit": pushed.commit,
            "sent": pushed.sent,
            "kept": pushed.kept,
        }))?;
    }
    Ok(())
}

/// An error if a signal came.
fn check_signal(signals: &Signals) -> Result<(), StoppedBy> {
    let stopped = signals.heard().map(|signal| StoppedBy {
        signal,
        advice: "the same command sends what is missing",
    });
    stopped.map_or(Ok(()), Err)
}

/// Writes the run's adapter and its card into `out`.
fn adapter(args: &Args, out: &Path) -> Result<(), Box<dyn Error>> {
    adapted::refuse_without_adapter(&args.run)?;
    let adapter = PeftAdapter::from_folder(&args.run)?;
    let name = match &args.base_model_name {
        Some(name) => Some(name.clone()),
        None => base_name(&args.run, &adapter)?,
    };
    let base = args.form.base(&args.run, &adapter)?;
    let written = args.form.write(&adapter, base, name.clone(), out)?;
    export::write_labels(Some(&args.run), &adapter, out)?;
    card::write(written.of, &args.run, name.as_deref(), out);
    Ok(())
}

/// Writes the run's whole model and its card into `out`.
fn merged(args: &Args, out: &Path) -> Result<(), Box<dyn Error>> {
    let source = Source {
        run: Some(args.run.clone()),
        checkpoint: args.checkpoint,
        adapter: None,
        model: args.form.model.clone(),
    };
    let trained = adapted::source(source, None)?;
    let folder = trained.folder.clone();
    let Some(kind) = args.gguf else {
        let of = merge::write(trained, merge::Form::Folder(args.dtype), out)?;
        card::write(of, &folder, args.base_model_name.as_deref(), out);
        return Ok(());
    };
    let name = args.name.name().rsplit('/').next().unwrap_or_default();
    let file = out.join(format!("{name}.gguf"));
    let of = merge::write(trained, merge::Form::Gguf(kind), &file)?;
    card::write(of, &folder, args.base_model_name.as_deref(), &file);
    let beside = out.join(format!("{name}.md"));
    if beside.exists() {
        fs::rename(beside, out.join(CARD))?;
    }
    Ok(())
}

/// The base model's name for the files: its name on the Hub, else that of its folder, since others have no use for a path
/// of this machine.
fn base_name(run: &Path, adapter: &PeftAdapter) -> Result<Option<String>, Box<dyn Error>> {
    let model = if Run::is_in(run) {
        Some(Run::open(run)?.1.base.model)
    } else {
        let named = adapter.config.base_model_name_or_path.as_ref();
        named.map(PathBuf::from)
    };
    let Some(text) = model.as_deref().and_then(Path::to_str) else {
        return Ok(None);
    };
    if let Some((RepoKind::Model, id)) = RepoId::of_snapshot(text) {
        return Ok(Some(id.name().to_string()));
    }
    if hub::is_name(text) {
        return Ok(Some(text.to_string()));
    }
    // Names such as roberta-base have no owner, and a folder that is not there is no folder.
    if !text.contains(['/', '\\']) && !Path::new(text).exists() {
        return Ok(Some(text.to_string()));
    }
    let Some(name) = Path::new(text).file_name() else {
        return Ok(None);
    };
    let name = name.to_string_lossy().into_owned();
    note!(
        "the base model {text} is not from the Hub, and the files call it {name}: if it is there, pass --base-model-name \
         org/name"
    );
    Ok(Some(name))
}

/// Prints what is sent where.
fn list(name: &RepoId, hub: &Hub, upload: &Upload) -> Result<(), Box<dyn Error>> {
    say!("to {}:", hub.page(name))?;
    let widest = upload.files().iter().map(|file| file.name().len()).max();
    let widest = widest.unwrap_or_default();
    for file in upload.files() {
        let size = DecimalBytes(file.size()).to_string();
        say!("  {:widest$}  {size:>10}", file.name())?;
    }
    let count = upload.files().len();
    let word = if count == 1 { "file" } else { "files" };
    say!("{count} {word}, {}", DecimalBytes(upload.size()))?;
    Ok(())
}

/// Shows what is sent, and stops after a signal.
struct Sending<'a> {
    transfers: Transfers,
    signals: &'a Signals,
}

impl Progress for Sending<'_> {
    fn started(&mut self, file: &str, done: u64, total: Option<u64>) {
        self.transfers.started(file, done, total);
    }

    fn advanced(&mut self, done: u64) {
        self.transfers.advanced(done);
    }

    fn finished(&mut self) {
        self.transfers.finished();
    }

    fn note(&mut self, text: &str) {
        self.transfers.note(text);
    }

    fn is_stopped(&mut self) -> bool {
        self.signals.heard().is_some()
    }
}
