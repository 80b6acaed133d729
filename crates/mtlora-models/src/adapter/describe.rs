//! The configuration that describes adapted modules.

use std::collections::BTreeMap;

use mtlora_core::{AdaLora, AdapterMethod, Dora, FusedProjections, Structure};

use super::adalora::AdaLoraFields;
use super::config::{AdapterConfig, PeftType};
use super::peft::AdaptedModule;
use super::tied::TIED;

impl AdapterConfig {
    /// The configuration with the rank, alpha, dropout, method and kind of these modules.
    pub(super) fn describing(mut self, modules: &BTreeMap<String, AdaptedModule>) -> Self {
        let forms = || modules.values().map(|module| &module.values.form);
        self.method = forms()
            .next()
            .map_or(Structure::Lora.into(), |form| form.method);
        let is_adalora = self.method == AdapterMethod::from(AdaLora);
        let is_dora = self.method == AdapterMethod::from(Dora);
        let of_peft = is_adalora || is_dora || self.method == Structure::Lora;
        let scale = forms().next().map(|form| form.scale);
        // PEFT's AdaLoRA has one alpha, and adapts no embeddings.
        let alike = !is_adalora
            || modules
                .values()
                .all(|module| Some(module.values.form.scale) == scale && !module.embedding);
        let plain = |module: &AdaptedModule| {
            module.values.form.method == self.method && module.values.form.fused.is_empty()
        };
        self.lora_dropout = forms().map(|form| form.dropout).fold(0.0, f64::max);
        let [embeddings, output] = TIED.map(|name| modules.get(name));
        let tied = self.tie_word_embeddings && embeddings.is_some() && output.is_none();
        let turned = output.is_some_and(|module| module.embedding);
        let in_peft = of_peft && alike && modules.values().all(plain) && !tied && !turned;
        self.peft_type = match (in_peft, is_adalora) {
            (false, _) => PeftType::MtLora,
            (true, false) => PeftType::Lora,
            (true, true) => PeftType::AdaLora,
        };
        if self.peft_type == PeftType::AdaLora {
            return self.describing_adalora(modules);
        }
        self.adalora = None;
        let ranks: BTreeMap<&String, usize> = modules
            .iter()
            .map(|(name, module)| (name, module.values.rank()))
            .collect();
        self.r = commonest(ranks.values().copied()).unwrap_or(self.r);
        let alphas: BTreeMap<&String, f64> = modules
            .iter()
            .map(|(name, module)| (name, self.alpha(ranks[name], module.values.form.scale)))
            .collect();
        let usual = commonest(alphas.values().map(|alpha| alpha.to_bits()));
        self.lora_alpha = usual.map_or(self.lora_alpha, f64::from_bits);
        let rank_pattern = ranks.iter().filter(|(_, rank)| **rank != self.r);
        self.rank_pattern = rank_pattern
            .map(|(name, rank)| (name.to_string(), *rank))
            .collect();
        let alpha_pattern = alphas
            .iter()
            .filter(|(_, alpha)| **alpha != self.lora_alpha);
        self.alpha_pattern = alpha_pattern
            .map(|(name, alpha)| (name.to_string(), *alpha))
            .collect();
        let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_string();
        let mut fused: Vec<FusedProjections> = Vec::new();
        for (name, module) in modules {
            let adapted = &module.values.form.fused;
            let same = |(other, module): (&String, &AdaptedModule)| {
                last(other) != last(name) || module.values.form.fused == *adapted
            };
            // The last part of the name is enough if all modules that end with it are alike.
            let module = if modules.iter().all(same) {
                last(name)
            } else {
                name.clone()
            };
            if !adapted.is_empty() && !fused.iter().any(|known| known.module == module) {
                let adapted = adapted.clone();
                fused.push(FusedProjections { module, adapted });
            }
        }
        self.fused_projections = fused;
        self
    }
}

impl AdapterConfig {
    /// The rest of the configuration of AdaLoRA modules, which have one scale.
    fn describing_adalora(mut self, modules: &BTreeMap<String, AdaptedModule>) -> Self {
        let ranks = modules.values().map(|module| module.values.rank());
        let init_r = ranks.max().unwrap_or(self.r);
        let mut fields = self.adalora.take();
        let fields = fields
            .take_if(|fields| fields.init_r >= init_r)
            .unwrap_or_else(|| AdaLoraFields::new(init_r));
        self.r = fields.init_r;
        self.adalora = Some(fields);
        self.rank_pattern = Vec::new();
        self.alpha_pattern = Vec::new();
        self.fused_projections = Vec::new();
        if let Some(module) = modules.values().next() {
            self.lora_alpha = self.alpha(self.r, module.values.form.scale);
        }
        self
    }
}

/// The value that occurs most often; the largest of them if there are several.
fn commonest<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(value, count)| (*count, *value));
    most.map(|(value, _)| value)
}
