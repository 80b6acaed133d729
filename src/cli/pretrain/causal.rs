//! `mtlora pretrain --architecture gpt2`.

use std::error::Error;

use burn::module::Module;
use burn::tensor::Device;
use mtlora::models::{
    CausalLm, CausalText, END_OF_TEXT, ModelFamilies, ModelSizes, TextConfig, copy_tokenizer_files,
    read_tokenizer, train_causal_tokenizer, write_causal_tokenizer,
};
use mtlora::train::{CausalPretrainOptions, pretrain_causal};

use crate::cli::console::output;
use crate::cli::pretrain::masked_lm::{Args, Made, Shown};

pub(crate) fn run(args: &Args, lines: &[String], device: &Device) -> Result<Made, Box<dyn Error>> {
    let options = CausalPretrainOptions {
        steps: args.steps,
        batch: args.batch,
        gradient_accumulation: args.gradient_accumulation,
        lr: args.lr,
        warmup_ratio: args.warmup_ratio,
        weight_decay: args.weight_decay,
        seed: args.seed,
    };
    // A wrong option is refused before anything is written.
    options.validate()?;
    let tokenizer = match &args.tokenizer {
        Some(folder) => read_tokenizer(folder, args.architecture.model_type())?,
        None => train_causal_tokenizer(lines.iter(), args.vocab_size)?,
    };
    let end_of_text = tokenizer.token_to_id(END_OF_TEXT).ok_or_else(|| {
        format!(
            "the tokenizer has no {END_OF_TEXT} token, which separates texts; use GPT-2's tokenizer"
        )
    })?;
    let config = ModelFamilies::builtin().new_causal(
        args.architecture.model_type(),
        &ModelSizes {
            vocab_size: tokenizer.get_vocab_size(true),
            hidden_size: args.hidden_size,
            layers: args.layers,
            heads: args.heads,
            key_value_heads: None,
            head_width: None,
            intermediate_size: None,
            max_tokens: args.max_length,
            end_of_text: Some(end_of_text),
        },
    )?;
    output::make_folder(&args.out)?;
    match &args.tokenizer {
        Some(folder) => {
            copy_tokenizer_files(folder, &args.out)?;
        }
        None => write_causal_tokenizer(&tokenizer, &args.out, args.max_length)?,
    }
    let path = args.out.join("tokenizer.json");
    let text = CausalText::new(path, tokenizer, config.vocab_size())?;
    let model = CausalLm::fresh(&config, args.seed, device)?;
    let parameters = model.num_params();
    note!(
        "{} lines, {} tokens in the vocabulary, {parameters} parameters",
        lines.len(),
        config.vocab_size()
    );
    let mut shown = Shown::new();
    let model = pretrain_causal(
        model,
        &config,
        &text,
        lines,
        &options,
        device,
        &mut |progress| shown.step(progress),
    )?;
    model.save(&args.out, &config)?;
    Ok(Made {
        parameters,
        loss: shown.loss,
    })
}
