//! Shows file transfers in both directions: as a progress bar on a terminal that supports one, otherwise as a line for each large file.

use std::time::Duration;

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mtlora::hub::Progress;

use crate::cli::console::output::{printable, printable_lines};
use crate::cli::console::terminal::is_drawable;

/// The size in bytes from which a transfer is shown as a line. Smaller files are fetched without a message.
const LARGE: u64 = 1 << 20;
/// The bar of a file whose size is known.
const BAR: &str =
    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
/// The bar of a file whose size is not known.
const COUNT: &str = "{msg} {spinner} {decimal_bytes} {decimal_bytes_per_sec}";
const TICK: Duration = Duration::from_millis(200);

/// Shows transfers on standard error.
pub(crate) struct Transfers {
    bar: Option<(String, ProgressBar)>,
    drawable: bool,
    /// What is done with a file, and what has been done with its first bytes.
    verbs: (&'static str, &'static str),
}

impl Transfers {
    pub(crate) fn new() -> Self {
        Self {
            bar: None,
            drawable: is_drawable(&std::io::stderr()),
            verbs: ("fetching", "fetched"),
        }
    }

    /// Shows what is sent.
    pub(crate) fn of_sending() -> Self {
        Self {
            verbs: ("sending", "sent"),
            ..Self::new()
        }
    }
}

impl Progress for Transfers {
    fn started(&mut self, file: &str, done: u64, total: Option<u64>) {
        if let Some((name, bar)) = &self.bar
            && name == file
        {
            // The transfer was resumed after an interruption.
            bar.set_position(done);
            return;
        }
        let (verb, past) = self.verbs;
        if let Some(total) = total.filter(|total| !self.drawable && *total >= LARGE) {
            let from = match done {
                0 => String::new(),
                done => format!(", of which {} have already been {past}", DecimalBytes(done)),
            };
            note!("{verb} {} ({}{from})", printable(file), DecimalBytes(total));
        }
        // The bar alone would draw on any terminal, so a terminal without cursor movement needs a hidden target.
        let target = if self.drawable {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let template = if total.is_some() { BAR } else { COUNT };
        let bar = ProgressBar::with_draw_target(total, target);
        let style = ProgressStyle::with_template(template);
        let bar = bar
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(printable(file).into_owned())
            .with_position(done);
        // The speed must not include the bytes that had been fetched before.
        bar.reset_eta();
        bar.enable_steady_tick(TICK);
        self.bar = Some((file.to_string(), bar));
    }

    fn advanced(&mut self, done: u64) {
        if let Some((_, bar)) = &self.bar {
            bar.set_position(done);
        }
    }

    fn finished(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn note(&mut self, text: &str) {
        let text = printable_lines(text);
        match &self.bar {
            Some((_, bar)) if self.drawable => bar.println(text),
            _ => note!("{text}"),
        }
    }
}
