//! Burn's terminal dashboard for the training loop.

use std::sync::Arc;

use burn::train::Interrupter;
use burn::train::logger::TrainingProgressLogger;
use burn::train::metric::{
    MetricAttributes, MetricDefinition, MetricEntry, MetricId, MetricName as BurnName,
    NumericAttributes, NumericEntry, SerializedEntry,
};
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{MetricState, MetricsRenderer, MetricsRendererTraining};

use mtlora_core::State;

use crate::metrics::labels::{MetricName, Scores};
use crate::training::error::FitError;
use crate::training::observer::{Observer, Pause, StepReport, Wish};

const LOSS: &str = "Loss";
const LEARNING_RATE: &str = "Learning Rate";

/// Shows steps and scores on Burn's dashboard. Pressing `q` and then `s` ends the training.
pub struct Dashboard {
    renderer: TuiMetricsRendererWrapper,
    interrupter: Interrupter,
    started: bool,
}

impl Dashboard {
    /// Opens a dashboard, which occupies the terminal until it is dropped.
    pub fn new(metrics: &[MetricName]) -> Self {
        let interrupter = Interrupter::new();
        let mut renderer = TuiMetricsRendererWrapper::new(interrupter.clone(), None);
        let mut register = |name: &str, higher_is_better| {
            let attributes = NumericAttributes {
                unit: None,
                higher_is_better,
            };
            renderer.register_metric(MetricDefinition {
                metric_id: id(name),
                name: shared(name),
                description: None,
                attributes: MetricAttributes::Numeric(attributes),
            });
        };
        register(LOSS, false);
        register(LEARNING_RATE, false);
        for metric in metrics {
            register(metric.as_str(), metric.higher_is_better());
        }
        Self {
            renderer,
            interrupter,
            started: false,
        }
    }
}

impl Observer for Dashboard {
    fn step(&mut self, report: &StepReport) -> Result<(), FitError> {
        if !self.started {
            self.renderer.start(1, 1, Some(report.steps), None);
            self.renderer.start_split("train", report.steps);
            self.started = true;
        }
        self.renderer.update_train(numeric(LOSS, report.loss));
        self.renderer
            .update_train(numeric(LEARNING_RATE, report.learning_rate));
        self.renderer.update_split(report.step);
        Ok(())
    }

    fn evaluated(&mut self, _: usize, scores: &Scores, _: Option<&State>) -> Result<(), FitError> {
        for (name, value) in scores.iter() {
            let name = match name {
                MetricName::Loss => LOSS,
                _ => name.as_str(),
            };
            self.renderer.update_valid(numeric(name, value));
        }
        Ok(())
    }

    fn between(&mut self, _: &Pause) -> Result<Wish, FitError> {
        Ok(Wish {
            stop: self.interrupter.should_stop(),
            ..Wish::default()
        })
    }
}

fn shared(name: &str) -> BurnName {
    Arc::new(name.to_string())
}

fn id(name: &str) -> MetricId {
    MetricId::new(shared(name))
}

fn numeric(name: &str, value: f64) -> MetricState {
    let entry = SerializedEntry::new(format!("{value:.4}"), value.to_string());
    MetricState::Numeric(
        MetricEntry::new(id(name), entry),
        Some(NumericEntry::Value(value)),
    )
}
