//! `mtlora train --task chat`.

use std::error::Error;

use burn::module::Module;
use burn::tensor::Device;
use mtlora::core::TrainingHooks;
use mtlora::models::ChatTemplate;
use mtlora::train::bench::Subject;
use mtlora::train::chat::{ChatExample, ChatSequence, ChatTask};
use mtlora::train::{
    CAUSAL_EVALUATION_TOKENS, CausalData, ChatRun, Extras, LoadedGenerator, MetricName, ModelSpec,
    ProcessGroup, PromptForm, RunConfig, RunResults, ScoredSplit, TaskData, WriteOptions,
    chat_scores, serve_chat, train_chat,
};

use crate::cli::chat::examples::{self, Split};
use crate::cli::console::output::{self, Output};
use crate::cli::console::progress::Progress;
use crate::cli::model::device;
use crate::cli::ranks;
use crate::cli::train::bases::Bases;
use crate::cli::train::begin::Begin;
use crate::cli::train::method::{Scheduled, refuse_untrainable};
use crate::cli::train::outcome::{self, Outcome, Sizes, chosen_on};
use crate::cli::train::preview::{longest, measure, note_lengths};

/// What is computed on the dev split.
pub(crate) const METRICS: [MetricName; 3] = [
    MetricName::Loss,
    MetricName::Perplexity,
    MetricName::TokenAccuracy,
];
/// The number of conversations whose last answers are printed before and after training.
const SHOWN: usize = 3;
/// The most tokens of such an answer.
const SHOWN_TOKENS: usize = 96;

/// Trains, on all ranks of the group if there is one, and returns the results; `None` after a dry run, and on the ranks after
/// rank 0.
pub(crate) fn run(
    config: &RunConfig<ChatRun>,
    begin: Begin<'_>,
    show: Output,
    bases: Option<&mut Bases>,
    group: Option<&ProcessGroup<'_>>,
) -> Result<Option<RunResults>, Box<dyn Error>> {
    config.training.validate()?;
    config.training.check_metric(&METRICS)?;
    config.base.adapter.check_training(&config.training)?;
    config.checkpoints.validate()?;
    refuse_untrainable(&config.base.adapter)?;
    ranks::begin(group, &config.training)?;
    let device = device::open(&config.device)?.autodiff();
    let mut note = |text: &str| {
        if !show.quiet {
            note!("{text}");
        }
    };
    let mut read = |split: &str| Split::read_noting(&config.data.folder, split, &mut note);
    let train = read(ChatTask.train_split())?;
    let [train, dev] = match config.data.validation_fraction {
        Some(fraction) => train.hold_back(fraction)?,
        None => [train, read(ChatTask.dev_split())?],
    };
    let score_split = config
        .data
        .score_split
        .as_deref()
        .map(&mut read)
        .transpose()?;
    let spec = config.model();
    let started = match bases {
        Some(bases) => bases.generator(&spec, &config.device, &device)?,
        None => spec.start(&device)?,
    };
    let parts = started.loaded;
    let all: Vec<&[ChatExample]> = [Some(&train), Some(&dev), score_split.as_ref()]
        .into_iter()
        .flatten()
        .map(|split| split.examples.as_slice())
        .collect();
    let template = examples::template(&config.base.model, &parts.text, &all)?;
    if let Some(template) = template.as_ref().filter(|_| !show.quiet) {
        examples::note_left_out(template, &all);
    }
    let kind = &config.kind;
    let encoder = examples::encoder(&parts.text, template.as_ref(), &parts.config, kind.loss_on);
    let encode = |split: &Split| {
        let encoded = split.encode(encoder, config.base.max_length, kind.too_long)?;
        if !show.quiet {
            split.note_cut(&encoded, config.base.max_length);
        }
        Ok::<Vec<ChatSequence>, Box<dyn Error>>(encoded.sequences)
    };
    let (items, dev_items) = (encode(&train)?, encode(&dev)?);
    let to_score = match &score_split {
        Some(split) => Some((split.name.as_str(), encode(split)?)),
        None => None,
    };
    let data = CausalData {
        items: &items,
        dev: &dev_items,
        label_smoothing: kind.label_smoothing,
    };
    if let Some(group) = group.filter(|group| group.rank() > 0) {
        serve_chat(parts.model, data, &config.training, &device, group)?;
        return Ok(None);
    }
    let lengths: Vec<usize> = items.iter().map(|item| item.ids.len()).collect();
    let method = Scheduled::new(config, &lengths, spec.format(&parts)?)?;
    let Scheduled { format, mut hooks } = method;
    let opened = begin.open(config.clone(), &format)?;

    let sizes = Sizes::of(&items, &dev_items, &config.data, &parts.model);
    if !show.quiet {
        sizes.print(ChatTask::NAME, &config.device);
        let learned: usize = items.iter().map(ChatSequence::learned_tokens).sum();
        note!(
            "{learned} of {} training tokens are learned (--loss-on {})",
            lengths.iter().sum::<usize>(),
            kind.loss_on
        );
        note_lengths(ChatTask.train_split(), &lengths, config.base.max_length);
        let dev_lengths: Vec<usize> = dev_items.iter().map(|item| item.ids.len()).collect();
        note_lengths(
            chosen_on(sizes.held_back),
            &dev_lengths,
            config.base.max_length,
        );
    }
    let Some((run, from)) = opened else {
        let largest = longest(&dev_items, CAUSAL_EVALUATION_TOKENS, |item| item.ids.len());
        chat_scores(
            &parts.model.clone().valid(),
            &largest,
            &device.clone().inner(),
        )?;
        let (options, smoothing) = (&config.training, kind.label_smoothing);
        let subject = Subject::causal(parts.model, &items, smoothing, options, &device);
        measure(subject, &lengths, options, group, show.json)?;
        return Ok(None);
    };
    let shown = if show.quiet {
        Samples::default()
    } else {
        Samples::of(template.as_ref(), &dev)?
    };
    let plain_device = device.clone().inner();
    let before = shown.answers(config, &parts, &plain_device)?;
    let step = from.as_ref().map_or(0, |snapshot| snapshot.step);
    let mut progress = Progress::new(
        &run,
        format,
        &config.checkpoints,
        step,
        &METRICS,
        chosen_on(sizes.held_back),
        show,
    )?;
    let trained = train_chat(
        parts.model,
        data,
        &config.training,
        from,
        &device,
        &mut progress,
        Extras {
            hooks: hooks.as_mut().map(|hooks| hooks as &mut dyn TrainingHooks),
            group,
        },
    );
    let trained = progress.close(trained)?;

    let scored = match to_score {
        Some((split, items)) => {
            let model = trained.model.clone().valid();
            Some((split, chat_scores(&model, &items, &plain_device)?))
        }
        None => None,
    };
    let mut results = RunResults::of_training(
        ChatTask::NAME,
        &trained,
        sizes.parameters,
        output::peak_rss_mb(),
    );
    results.scored = scored.as_ref().map(|(split, scores)| ScoredSplit {
        split: split.to_string(),
        metrics: scores.into(),
    });
    let parts = LoadedGenerator {
        model: trained.model,
        ..parts
    };
    // This comes before any output: the run is complete even if nobody reads the output.
    outcome::save(&run, &results)?;
    if show.quiet {
        return Ok(Some(results));
    }
    let after = shown.answers(config, &parts, &plain_device)?;
    for ((question, before), after) in shown.questions.iter().zip(before).zip(after) {
        say!("asked:  {}", output::printable(question))?;
        say!("before: {}", output::printable(&before))?;
        say!("after:  {}", output::printable(&after))?;
    }
    let outcome = Outcome {
        chosen_on: chosen_on(sizes.held_back),
        metric: config
            .training
            .metric_for_best_model
            .unwrap_or(MetricName::Loss),
        scored: scored.as_ref().map(|(split, scores)| (*split, scores)),
        before: &trained.before,
        best: &trained.best,
        texts: None,
        results: &results,
    };
    outcome.print(&run, show.json)?;
    Ok(Some(results))
}

/// Conversations of the dev split whose last answers are shown.
#[derive(Default)]
struct Samples {
    /// The last message before the answer.
    questions: Vec<String>,
    /// The rendered conversations, up to the answer.
    prompts: Vec<String>,
}

impl Samples {
    fn of(template: Option<&ChatTemplate>, dev: &Split) -> Result<Self, Box<dyn Error>> {
        let (mut questions, mut prompts) = (Vec::new(), Vec::new());
        let conversations = dev.examples.iter().filter_map(|one| one.conversation());
        for conversation in conversations {
            let prompt = conversation.prompt();
            let Some(template) = template else {
                break;
            };
            if prompts.len() == SHOWN {
                break;
            }
            let Some(last) = prompt.messages.last() else {
                continue;
            };
            let question = last.get("content").and_then(|content| content.as_str());
            questions.push(question.unwrap_or_default().to_string());
            prompts.push(template.render(&prompt, true)?);
        }
        Ok(Self { questions, prompts })
    }

    /// What the model answers; greedily, so that both times differ in nothing but the model.
    fn answers(
        &self,
        config: &RunConfig<ChatRun>,
        parts: &LoadedGenerator,
        device: &Device,
    ) -> Result<Vec<String>, Box<dyn Error>> {
        if self.prompts.is_empty() {
            return Ok(Vec::new());
        }
        let parts = LoadedGenerator {
            model: config.base.adapter.folded(parts.model.clone().valid()),
            config: parts.config.clone(),
            text: parts.text.clone(),
        };
        let prompts: Vec<&str> = self.prompts.iter().map(String::as_str).collect();
        let mut decoding = config.kind.decoding.clone();
        (decoding.do_sample, decoding.num_beams) = (false, 1);
        decoding.max_new_tokens = decoding.max_new_tokens.min(SHOWN_TOKENS);
        let options = WriteOptions {
            decoding,
            form: PromptForm::Conversation,
            cut: true,
        };
        let written = parts.write(&prompts, &options, device, &mut |_| ())?;
        Ok(written.into_iter().map(|one| one.text).collect())
    }
}
