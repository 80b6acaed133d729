//! Decides whether the program can train an adapter's method.

use std::error::Error;

use mtlora::core::AdapterMethod;
use mtlora::models::AdapterConfig;
use mtlora::train::{AdapterSettings, MethodName};

const ELSEWHERE: &str =
    "train it in a Rust program of your own (see fit_with_hooks in the crate mtlora-train)";

/// Refuses an adapter whose method changes it during training, such as AdaLoRA, because there are no settings for
/// that yet.
pub(super) fn refuse_untrainable(settings: &AdapterSettings) -> Result<(), Box<dyn Error>> {
    if settings.method != MethodName::MtLora {
        return Ok(());
    }
    if let Some(from) = &settings.init_from {
        let method = AdapterConfig::from_folder(from)?.method;
        if method.needs_hooks() {
            let place = from.display();
            return Err(format!(
                "{place}: its adapter has the method {method}, {}; turn it into plain LoRA with `mtlora export --run \
                 {place} --out LORA` and start from that with --init-from LORA, or {ELSEWHERE}",
                reason(method)
            )
            .into());
        }
    }
    let method = settings.structure;
    if method.needs_hooks() {
        return Err(format!(
            "the run's adapter has the method {method}, {}; choose another structure, or {ELSEWHERE}",
            reason(method)
        )
        .into());
    }
    Ok(())
}

fn reason(method: AdapterMethod) -> String {
    format!(
        "which mtlora train cannot train, because there are no flags for the schedule of {method}"
    )
}
