//! The calls that a training makes to the hooks of its adapter method.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use mtlora_core::{HookError, State, TrainingHooks, attached, change_factors, check_hooks};

use crate::training::snapshot::ResumeError;

/// The [`TrainingHooks`] of a training, or none, as for most methods: then nothing is computed.
#[derive(Default)]
pub(crate) struct StepHooks<'a>(Option<&'a mut dyn TrainingHooks>);

impl<'a> StepHooks<'a> {
    pub(crate) fn new(hooks: Option<&'a mut dyn TrainingHooks>) -> Self {
        Self(hooks)
    }

    /// Before the first step, or the first one after a stop.
    ///
    /// # Errors
    /// When the model's adapters do not train with these hooks, or not in this many steps.
    pub(crate) fn begin<M: Module>(&mut self, model: &M, steps: usize) -> Result<(), HookError> {
        let adapters = attached(model);
        match &mut self.0 {
            Some(hooks) => hooks.begin(&adapters, steps),
            None => check_hooks(&adapters, None),
        }
    }

    /// The term that is added to the loss of a step: `[1]`.
    pub(crate) fn penalty<M: Module>(&self, model: &M) -> Option<Tensor<1>> {
        self.0.as_ref()?.penalty(&attached(model))
    }

    /// Before the optimizer's step number `step`, from 1.
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

    /// The model after the optimizer's step number `step`, with what the method changes in it.
    pub(crate) fn after_step<M: Module>(&mut self, step: usize, model: M) -> M {
        let Some(hooks) = &mut self.0 else {
            return model;
        };
        let changes = hooks.after_step(step, &attached(&model));
        change_factors(model, changes)
    }

    /// All that the method needs to continue.
    pub(crate) fn state(&self) -> State {
        self.0
            .as_ref()
            .map_or_else(State::new, |hooks| hooks.state())
    }

    /// Continues from a [`Self::state`].
    ///
    /// # Errors
    /// When it is not of a training with these hooks and adapters.
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
