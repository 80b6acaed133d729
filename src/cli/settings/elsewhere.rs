//! What other programs call settings, and which flags of `mtlora train` are no settings.

/// The flags of `mtlora train` that a file cannot set.
pub(crate) const COMMAND_LINE: [&str; 10] = [
    "autotune",
    "config",
    "dry_run",
    "json",
    "matmul_precision",
    "out",
    "overwrite",
    "plain",
    "recipe",
    "resume",
];

/// Names in PEFT, transformers, TRL and other trainers, and what is called so here: a setting, or one of [`COMMAND_LINE`].
const NAMES: &[(&str, &str)] = &[
    ("assistant_only_loss", "loss_on"),
    ("base_model", "model"),
    ("base_model_name_or_path", "model"),
    ("batch_size", "batch"),
    ("bf16", "base_dtype"),
    ("clip_grad_norm", "max_grad_norm"),
    ("completion_only_loss", "loss_on"),
    ("cutoff_len", "max_length"),
    ("data_dir", "data"),
    ("data_path", "data"),
    ("dataset", "data"),
    ("dataset_name", "data"),
    ("dataset_path", "data"),
    ("dataset_text_field", "text_column"),
    ("dropout", "adapter_dropout"),
    ("early_stopping_patience", "patience"),
    ("fp16", "base_dtype"),
    ("grad_clip", "max_grad_norm"),
    ("gradient_accumulation_steps", "gradient_accumulation"),
    ("gradient_clip_val", "max_grad_norm"),
    ("init_lora_weights", "init"),
    ("label_smoothing_factor", "label_smoothing"),
    ("learning_rate", "lr"),
    ("load_in_4bit", "base_dtype"),
    ("load_in_8bit", "base_dtype"),
    ("lora_alpha", "alpha"),
    ("lora_dropout", "adapter_dropout"),
    ("lora_r", "rank"),
    ("lora_rank", "rank"),
    ("lora_target_modules", "targets"),
    ("lr_scheduler", "lr_scheduler_type"),
    ("max_seq_len", "max_length"),
    ("max_seq_length", "max_length"),
    ("micro_batch_size", "batch"),
    ("model_max_length", "max_length"),
    ("model_name", "model"),
    ("model_name_or_path", "model"),
    ("num_epochs", "epochs"),
    ("num_train_epochs", "epochs"),
    ("output_dir", "out"),
    ("overwrite_output_dir", "overwrite"),
    ("peft_type", "structure"),
    ("per_device_train_batch_size", "batch"),
    ("r", "rank"),
    ("random_seed", "seed"),
    ("resume_from_checkpoint", "resume"),
    ("rslora", "use_rslora"),
    ("sequence_len", "max_length"),
    ("steps", "max_steps"),
    ("target_modules", "targets"),
    ("task_name", "task"),
    ("train_batch_size", "batch"),
    ("use_dora", "structure"),
    ("use_gradient_checkpointing", "gradient_checkpointing"),
];

/// What is called `name` elsewhere, with - or with _ between its words: the name of a setting, or one of [`COMMAND_LINE`].
pub(crate) fn here(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let known = NAMES.iter().find(|(theirs, _)| *theirs == name);
    known.map(|(_, ours)| *ours)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Args;

    use super::*;
    use crate::cli::settings::flags::Settings;

    #[test]
    fn names_of_others_stand_for_settings_and_flags_that_there_are() {
        let command = Settings::augment_args(clap::Command::new("settings"));
        let flags = command.get_arguments().map(|flag| flag.get_id().as_str());
        let settings: BTreeSet<&str> = flags.collect();
        let mut before = "";
        for (theirs, ours) in NAMES {
            let is_ours = |name: &str| settings.contains(name) || COMMAND_LINE.contains(&name);
            assert!(is_ours(ours), "{theirs} {ours}");
            assert!(!is_ours(theirs), "{theirs} is one of our own names");
            assert!(before < *theirs, "{theirs} is not in order, or twice");
            before = theirs;
        }
        assert_eq!(here("LoRA-alpha"), Some("alpha"));
        assert_eq!(here("alphas"), None);
    }
}
