//! Calls the training hooks of an adapter method.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use mtlora_core::{HookError, State, TrainingHooks, attached, change_factors, check_hooks};

use crate::training::snapshot::ResumeError;

/// The [`TrainingHooks`] of a training. Most methods have none, and then nothing is computed.
#[derive(Default)]
pub(crate) struct StepHooks<'a>(Option<&'a mut dyn TrainingHooks>);

impl<'a> StepHooks<'a> {
    pub(crate) fn new(hooks: Option<&'a mut dyn TrainingHooks>) -> Self {
        Self(hooks)
    }

    /// Whether there are any.
    pub(crate) fn are_set(&self) -> bool {
        self.0.is_some()
    }

    /// Called before the first step, also when a training is resumed.
    ///
    /// # Errors
    /// When the hooks do not match the model's adapters or the number of steps.
    pub(crate) fn begin<M: Module>(&mut self, model: &M, steps: usize) -> Result<(), HookError> {
        let adapters = attached(model);
        match &mut self.0 {
            Some(hooks) => hooks.begin(&adapters, steps),
            None => check_hooks(&adapters, None),
        }
    }

    /// The term that is added to the loss of a step, of shape `[1]`.
    pub(crate) fn penalty<M: Module>(&self, model: &M) -> Option<Tensor<1>> {
        self.0.as_ref()?.penalty(&attached(model))
    }

    /// Called with the gradients before the optimizer makes step number `step`, counted from 1.
    pub(crate) fn after_backward<M: Module>(
        &mut self,
        step: usize,
        model: &M,
        gradients: &GradientsParams,
    ) {
        if let Some(hooks) = &mut self.0 {
            hooks.after_backward(step, &attached(model), gradients);
        }
    }

    /// Called after the optimizer has made step number `step`. Returns the model with the changes that the method
    /// makes.
    pub(crate) fn after_step<M: Module>(&mut self, step: usize, model: M) -> M {
        let Some(hooks) = &mut self.0 else {
            return model;
        };
        let changes = hooks.after_step(step, &attached(&model));
        change_factors(model, changes)
    }

    /// The rank of all adapters that is left after step number `step`, if the method has a budget of it.
    pub(crate) fn rank_budget(&self, step: usize) -> Option<usize> {
        self.0.as_ref()?.rank_budget(step)
    }

    /// Whether the state after step number `step` may be kept as the best.
    pub(crate) fn is_settled(&self, step: usize) -> bool {
        self.0.as_ref().is_none_or(|hooks| hooks.is_settled(step))
    }

    /// The state that the hooks need to resume a training.
    pub(crate) fn state(&self) -> State {
        self.0
            .as_ref()
            .map_or_else(State::new, |hooks| hooks.state())
    }

    /// Restores what [`Self::state`] returned.
    ///
    /// # Errors
    /// When the state belongs to other hooks or other adapters.
    pub(crate) fn load_state<M: Module>(
        &mut self,
        state: State,
        model: &M,
    ) -> Result<(), ResumeError> {
        match &mut self.0 {
            Some(hooks) => Ok(hooks.load_state(state, &attached(model))?),
            None if state.is_empty() => Ok(()),
            None => Err(ResumeError::NoHooks),
        }
    }
}
